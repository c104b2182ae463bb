"""Timing that holds on a busy machine, and the description of that machine."""

import datetime
import importlib.metadata
import os
import platform
import statistics
import time


def interleaved(runs: dict, rounds: int) -> dict:
    """Times several functions by turns, so that a slow moment of the machine hits all of them.

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
        # Every other round goes backward: nobody always runs behind the same neighbour.
        for name in list(runs)[:: 1 if number % 2 == 0 else -1]:
            start = time.perf_counter()
            runs[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


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
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
        **{name: _version(name) for name in ("keras", "tensorflow", "jax", "torch")},
        "date": datetime.date.today().isoformat(),
    }


def _cpu() -> str:
    # `platform.processor` is empty or just "x86_64" on Linux.
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
