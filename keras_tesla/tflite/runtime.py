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


def run(made: Interpreter, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs a model with one signature over a data set, batch by batch.

    Args:
        made: From `interpreter`.
        inputs: {input name: array `(examples, ...)`}; `examples` is a multiple of the batch size
            of the file.

    Returns:
        {output name: array `(examples, ...)`}.
    """
    runner = made.get_signature_runner()
    batch = next(iter(runner.get_input_details().values()))["shape"][0]
    examples = len(next(iter(inputs.values())))
    parts = [
        runner(**{name: x[i : i + batch] for name, x in inputs.items()})
        for i in range(0, examples, batch)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def latency(content: bytes, runs: int = 200, threads: int = 1) -> float:
    """Returns the median time of one call on this machine, in seconds.

    Args:
        content: The bytes of a .tflite file.
        runs: Int, number of timed calls, after a tenth as many that are not timed.
        threads: Int, number of CPU threads.
    """
    made = interpreter(content, threads=threads)
    times = []
    for _ in range(runs + runs // 10):
        begin = time.perf_counter()
        made.invoke()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[runs // 10 :])
