"""Running signatures with LiteRT's CompiledModel, in a process of its own.

`CompiledModel` is the interface that Android apps use. It checks the flatbuffer before it trusts
it, and it logs much; a crash in it ends the child and not the caller.

This file is both sides. The child runs it as a script and imports nothing of `keras_tesla`.
"""

import pathlib
import subprocess
import sys
import tempfile

import numpy as np


def run(content: bytes, calls: list[tuple[str, list[dict]]]) -> list[list[dict]]:
    """Runs signatures of a file.

    Args:
        content: The bytes of a .tflite file.
        calls: [(signature, [{input name: array}, ..])].

    Returns:
        For each call a list of {output name: array}.

    Raises:
        RuntimeError: If the file is refused, or the process crashes.
    """
    with tempfile.TemporaryDirectory() as directory:
        folder = pathlib.Path(directory)
        (folder / "model.tflite").write_bytes(content)
        np.savez(
            folder / "inputs.npz",
            **{
                f"{number}/{signature}/{batch}/{name}": array
                for number, (signature, inputs) in enumerate(calls)
                for batch, feed in enumerate(inputs)
                for name, array in feed.items()
            },
        )
        done = subprocess.run(
            # -P: the modules beside this file must not be found in place of others.
            [sys.executable, "-P", __file__, directory],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"LiteRT's CompiledModel ended with status {done.returncode}:\n"
                + "\n".join(done.stderr.strip().splitlines()[-5:])
            )
        results: list[list[dict]] = [[{} for _ in inputs] for _, inputs in calls]
        with np.load(folder / "outputs.npz") as outputs:
            for key, array in outputs.items():
                number, batch, name = key.split("/", 2)
                results[int(number)][int(batch)][name] = array
        return results


def _main(directory):
    from ai_edge_litert.compiled_model import CompiledModel

    folder = pathlib.Path(directory)
    model = CompiledModel.from_file(str(folder / "model.tflite"))
    feeds: dict[tuple, dict] = {}
    with np.load(folder / "inputs.npz") as inputs:
        for key, array in inputs.items():
            number, signature, batch, name = key.split("/", 3)
            feeds.setdefault((number, signature, batch), {})[name] = array
    outputs: dict = {}
    for (number, signature, batch), feed in feeds.items():
        into = {n: model.create_input_buffer_by_name(signature, n) for n in feed}
        for name, array in feed.items():
            into[name].write(np.ascontiguousarray(array))
        details = model.get_output_tensor_details(signature)
        out = {n: model.create_output_buffer_by_name(signature, n) for n in details}
        model.run_by_name(signature, into, out)
        for name, detail in details.items():
            shape = [int(n) for n in detail["shape"]]
            flat = out[name].read(int(np.prod(shape)), np.dtype(detail["dtype"]))
            outputs[f"{number}/{batch}/{name}"] = np.array(flat).reshape(shape)
    np.savez(folder / "outputs.npz", **outputs)


if __name__ == "__main__":
    _main(sys.argv[1])
