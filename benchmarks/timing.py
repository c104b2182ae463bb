"""Timing that holds on a busy machine, and the description of that machine."""

import statistics
import time


def interleaved(runs: dict, rounds: int) -> dict:
    """Times several functions alternately, so that a slow moment of the machine hits all of them.

    Each is called once unmeasured: the first call compiles.

    Args:
        runs: {name: function without arguments}.
        rounds: Positive int, how often each one is timed.

    Returns:
        {name: list of seconds, one for each round}.
    """
    for run in runs.values():
        run()
    seconds = {name: [] for name in runs}
    for number in range(rounds):
        # Every other round goes backward: nothing always runs after the same neighbour.
        for name in list(runs)[:: 1 if number % 2 == 0 else -1]:
            start = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median(seconds: list) -> float:
    """Returns the median of the rounds."""
    return statistics.median(seconds)


def median_ratio(seconds: list, reference: list) -> float:
    """Returns the median over the rounds of `seconds / reference`."""
    return statistics.median(a / b for a, b in zip(seconds, reference, strict=True))


def thread_environment(threads: int) -> dict:
    """Returns the environment variables that hold TensorFlow, JAX and torch to some threads."""
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "NPROC")
    return {name: str(threads) for name in names}


def machine(threads: int) -> dict:
    """Describes where and when a measurement was made.

    Args:
        threads: Int, what the measurement was held to.
    """
    from keras_tesla.tflite.measure.machine import (
        describe,  # here: children choose their backend first
    )

    return describe(threads, ("keras", "tensorflow", "jax", "torch", "ai-edge-litert"))
