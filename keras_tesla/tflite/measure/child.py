"""Running one signature of a .tflite file in a separate process, and measuring it.

The runtime trusts a file: one that is broken can end the process. Here it ends a child, and the
caller gets an error. A separate process also has a separate memory peak.

This file is both sides. The child runs it as a script and imports nothing of `keras_tesla`, which
would bring TensorFlow into the process that is measured.
"""

import base64
import contextlib
import gc
import json
import os
import pathlib
import signal
import subprocess
import sys
import time


class MeasurementError(RuntimeError):
    """LiteRT could not run a file: it refused it, crashed, or took too long."""


def measure(
    path,
    signature: str,
    inputs: dict,
    values: dict,
    first: bytes,
    runs: int,
    warmup: int,
    threads: int,
    delegate: str,
    timeout: float,
) -> dict:
    """Opens a file in a new process and times calls of one signature.

    What is timed is LiteRT's `Invoke` of the signature's subgraph only. The inputs are set once,
    before: a Python `SignatureRunner` spends several microseconds a call on resizing, allocating
    and copying, which no phone does between two calls.

    Args:
        path: The .tflite file.
        signature: Name of the signature.
        inputs: {input name: {"shape": [..], "dtype": ..}}; filled with standard normal floats or
            with zeros and ones.
        values: {input name: list} of inputs that need certain values.
        first: Bytes of a small .tflite file that is opened and run before anything is measured, so
            that what the runtime loads and sets up once is not taken for the file's.
        runs: Int, number of timed calls.
        warmup: Int, number of calls before them that are not timed, after the very first.
        threads: Int, number of CPU threads.
        delegate: `"xnnpack"` or `"none"`.
        timeout: Seconds after which the process is ended.

    Returns:
        A dict: `seconds`, a list of `runs` times; `load`, the seconds from opening the file to the
        first result; `memory`, by how many bytes the process's peak of resident memory exceeds
        what it held before the file was opened, None on a system without `/proc`.

    Raises:
        MeasurementError: If the process does not end with a result.
    """
    request = {
        "path": os.fspath(path),
        "signature": signature,
        "inputs": inputs,
        "values": values,
        "first": base64.b64encode(first).decode(),
        "runs": runs,
        "warmup": warmup,
        "threads": threads,
        "delegate": delegate,
    }
    what = f"{signature!r} of {str(path)!r}"
    try:
        done = subprocess.run(
            # -P: the modules next to this file must not be found in place of others.
            [sys.executable, "-P", __file__],
            input=json.dumps(request),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise MeasurementError(
            f"{what} was not measured within {timeout:g} seconds. Ask for fewer runs or pass a "
            "longer `timeout`."
        ) from None
    if done.returncode < 0:
        raise MeasurementError(
            f"LiteRT crashed on {what} with {signal.Signals(-done.returncode).name}: the file is "
            "broken, this version of LiteRT cannot run it, or memory ran out."
            + _quoted(done.stderr)
        )
    if done.returncode > 0:
        raise MeasurementError(f"LiteRT could not run {what}." + _quoted(done.stderr))
    return json.loads(done.stdout)


def _quoted(stderr):
    lines = [line for line in stderr.strip().splitlines() if not line.startswith("INFO:")]
    return "".join(f"\n  {line}" for line in lines[-3:])


def _answer(request: dict) -> dict:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    options = {
        "num_threads": request["threads"],
        "experimental_op_resolver_type": {
            "xnnpack": OpResolverType.AUTO,
            "none": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        }[request["delegate"]],
    }
    inputs = _arrays(request["inputs"], request["values"])
    first = Interpreter(model_content=base64.b64decode(request["first"]), **options)
    first.allocate_tensors()
    first.invoke()
    gc.disable()
    # Importing may have needed more memory than is held now: the peak starts again.
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")

    begin = time.perf_counter()
    made = Interpreter(model_path=request["path"], **options)
    # Older runtimes apply XNNPACK here, and not when a signature's tensors are allocated.
    made.allocate_tensors()
    runner = made.get_signature_runner(request["signature"])
    runner(**inputs)
    load = time.perf_counter() - begin

    # The runner keeps both to itself, and `Interpreter.invoke` runs subgraph 0 only.
    invoke, subgraph = made._interpreter.Invoke, runner._subgraph_index
    for _ in range(request["warmup"]):
        invoke(subgraph)
    seconds = []
    for _ in range(request["runs"]):
        begin = time.perf_counter()
        invoke(subgraph)
        seconds.append(time.perf_counter() - begin)
    peak = _memory("VmHWM")
    memory = None if before is None or peak is None else peak - before
    return {"seconds": seconds, "load": load, "memory": memory}


def _arrays(specs, values):
    import numpy as np

    random = np.random.default_rng(0)
    made = {}
    for name, spec in specs.items():
        dtype, shape = np.dtype(spec["dtype"]), spec["shape"]
        if name in values:
            made[name] = np.array(values[name], dtype)
        elif np.issubdtype(dtype, np.floating):
            made[name] = random.standard_normal(shape).astype(dtype)
        else:
            made[name] = random.integers(0, 2, shape).astype(dtype)
    return made


def _memory(field):
    """Returns a line of the process's status in bytes."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return None


if __name__ == "__main__":
    try:
        answer = _answer(json.load(sys.stdin))
    except Exception as error:  # one line for the caller's message, not a traceback
        sys.exit(f"{type(error).__name__}: {error}")
    json.dump(answer, sys.stdout)
