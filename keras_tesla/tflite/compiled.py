"""Running signatures with LiteRT's CompiledModel in a separate process.

`CompiledModel` is the interface that Android apps use. It checks the flatbuffer before it trusts
it, and it logs much; a crash in it ends the child and not the caller.

This file is both sides. The child runs it as a script and imports nothing of `keras_tesla`.
"""

import pathlib
import subprocess
import sys
import tempfile

import numpy as np

_RAW = {"int64": "int32", "int16": "int8"}


class CompiledModelError(RuntimeError):
    """A file that CompiledModel refused, or in which the process crashed.

    Args:
        message: What happened.
        file: Int, which of the files.
    """

    def __init__(self, message: str, file: int):
        super().__init__(message)
        self.file = file


def run(files: list[tuple[bytes, list[tuple[str, list[dict]]]]]) -> list[list[list[dict]]]:
    """Runs signatures of files, all in one process: starting it takes longer than running a file.

    Args:
        files: [(the bytes of a .tflite file, [(signature, [{input name: array}, ..]), ..]), ..].

    Returns:
        For each file and call a list of {output name: array}.

    Raises:
        CompiledModelError: If a file is refused, or the process crashes.
    """
    with tempfile.TemporaryDirectory() as directory:
        folder = pathlib.Path(directory)
        for file, (content, calls) in enumerate(files):
            (folder / f"{file}.tflite").write_bytes(content)
            np.savez(
                folder / f"{file}.inputs.npz",
                **{
                    f"{number}/{signature}/{batch}/{name}": array
                    for number, (signature, inputs) in enumerate(calls)
                    for batch, feed in enumerate(inputs)
                    for name, array in feed.items()
                },
            )
        done = subprocess.run(
            # -P: the modules next to this file must not be found in place of others.
            [sys.executable, "-P", __file__, directory, str(len(files))],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        if done.returncode != 0:
            finished = (folder / f"{file}.outputs.npz" for file in range(len(files)))
            raise CompiledModelError(
                f"LiteRT's CompiledModel ended with status {done.returncode}:\n"
                + "\n".join(done.stderr.strip().splitlines()[-5:]),
                file=sum(path.exists() for path in finished),
            )
        return [
            _outputs(folder / f"{file}.outputs.npz", calls) for file, (_, calls) in enumerate(files)
        ]


def _outputs(path, calls) -> list[list[dict]]:
    results: list[list[dict]] = [[{} for _ in inputs] for _, inputs in calls]
    with np.load(path) as outputs:
        for key, array in outputs.items():
            number, batch, name = key.split("/", 2)
            results[int(number)][int(batch)][name] = array
    return results


def raw(array: np.ndarray) -> np.ndarray:
    """Returns a contiguous array in a type that CompiledModel's buffers take, the bytes unchanged.

    In Python they take neither int64 nor int16, which LiteRT itself runs.
    """
    array = np.ascontiguousarray(array)
    return array.view(_RAW.get(array.dtype.name, array.dtype))


def read(buffer, detail: dict) -> np.ndarray:
    """Returns the content of an output buffer.

    Args:
        buffer: The buffer.
        detail: What CompiledModel says of the tensor.
    """
    shape, dtype = [int(n) for n in detail["shape"]], np.dtype(detail["dtype"])
    taken = np.dtype(_RAW.get(dtype.name, dtype))
    flat = buffer.read(int(np.prod(shape)) * dtype.itemsize // taken.itemsize, taken)
    return np.array(flat).view(dtype).reshape(shape)


def _run_file(folder, file):
    from ai_edge_litert.compiled_model import CompiledModel

    model = CompiledModel.from_file(str(folder / f"{file}.tflite"))
    feeds: dict[tuple, dict] = {}
    with np.load(folder / f"{file}.inputs.npz") as inputs:
        for key, array in inputs.items():
            number, signature, batch, name = key.split("/", 3)
            feeds.setdefault((number, signature, batch), {})[name] = array
    outputs: dict = {}
    for (number, signature, batch), feed in feeds.items():
        into = {n: model.create_input_buffer_by_name(signature, n) for n in feed}
        for name, array in feed.items():
            into[name].write(raw(array))
        details = model.get_output_tensor_details(signature)
        out = {n: model.create_output_buffer_by_name(signature, n) for n in details}
        model.run_by_name(signature, into, out)
        for name, detail in details.items():
            outputs[f"{number}/{batch}/{name}"] = read(out[name], detail)
    np.savez(folder / f"{file}.outputs.npz", **outputs)


if __name__ == "__main__":
    for file in range(int(sys.argv[2])):
        _run_file(pathlib.Path(sys.argv[1]), file)
