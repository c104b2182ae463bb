"""Running .tflite files in LiteRT."""

import statistics
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType


def interpreter(content: bytes, xnnpack: bool = True, threads: int = 1) -> Interpreter:
    """Returns a LiteRT interpreter for a model, tensors allocated.

    Args:
        content: The bytes of a .tflite file.
        xnnpack: Bool, whether the XNNPACK delegate runs what it can (the default on phones).
        threads: Int, number of CPU threads.
    """
    kinds = OpResolverType
    made = Interpreter(
        model_content=content,
        num_threads=threads,
        experimental_op_resolver_type=kinds.AUTO
        if xnnpack
        else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    made.allocate_tensors()
    return made


def run(
    made: Interpreter, inputs: dict[str, np.ndarray], signature: str | None = None
) -> dict[str, np.ndarray]:
    """Runs a signature over a data set, batch by batch.

    Args:
        made: From `interpreter`.
        inputs: {input name: array `(examples, ...)`, or `(1,)` for one that has no batch}. Floats
            are quantized for an int8 input.
        signature: Its name; None for the only one.

    Returns:
        {output name: array `(examples, ...)`}, int8 outputs dequantized.
    """
    runner = made.get_signature_runner(signature)
    details = runner.get_input_details()
    raw = encode(details, inputs)
    parts = [runner(**batch) for batch in batches(details, raw)]
    return decode(runner.get_output_details(), parts, _examples(inputs))


def encode(details: dict, inputs: dict) -> dict:
    """Returns inputs in the types that a signature takes.

    Args:
        details: The input details of the runner.
        inputs: {input name: array}; an int8 one is quantized already.
    """
    return {
        name: _quantized(x, details[name])
        if details[name]["dtype"] == np.int8 and x.dtype != np.int8
        else x
        for name, x in inputs.items()
    }


def batches(details: dict, inputs: dict):
    """Yields the batches of a data set; the last one is padded with its last example."""
    size = max(int(detail["shape"][0]) for detail in details.values())
    batched = {name for name, detail in details.items() if int(detail["shape"][0]) == size}
    count = _examples(inputs)
    for start in range(0, count, size):
        places = np.minimum(np.arange(start, start + size), count - 1)
        yield {n: x[places] if n in batched and len(x) == count else x for n, x in inputs.items()}


def decode(details: dict, parts: list[dict], examples: int) -> dict:
    """Returns the outputs of all batches in one array each, int8 as floats.

    Args:
        details: The output details of the runner.
        parts: {output name: array} of each batch.
        examples: Int, number of examples.
    """
    joined = {n: np.concatenate([part[n] for part in parts])[:examples] for n in parts[0]}
    return {n: _dequantized(x, details[n]) if x.dtype == np.int8 else x for n, x in joined.items()}


def _examples(inputs):
    return max(len(x) for x in inputs.values())


def _quantized(x, detail):
    scale, zero = detail["quantization"]
    return np.clip(np.round(x / scale + zero), -128, 127).astype(np.int8)


def _dequantized(x, detail):
    scale, zero = detail["quantization"]
    return ((x.astype("float32") - zero) * scale).astype("float32")


def latency(made: Interpreter, inputs: dict, runs: int = 200) -> float:
    """Returns the median time of one call on this machine, in seconds.

    Args:
        made: From `interpreter`, of a file with one signature.
        inputs: {input name: array `(examples, ...)`}; the first batch is run.
        runs: Int, number of timed calls, after a tenth as many that are not timed.
    """
    runner = made.get_signature_runner()
    details = runner.get_input_details()
    runner(**next(batches(details, encode(details, inputs))))  # and the inputs stay set
    del runner  # `invoke` raises while anything else refers to the interpreter's internals
    times = []
    for _ in range(runs + runs // 10):
        begin = time.perf_counter()
        made.invoke()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[runs // 10 :])
