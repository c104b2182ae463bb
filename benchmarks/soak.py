r"""Whether a file that is opened once holds: threads ask it for random percentages for minutes.

One `keras_tesla.tflite.Model` is shared by all threads, as its documentation allows. Every answer
is compared with Keras' at that percentage; the process's resident memory is read all the while.

    calls, wrong        how many calls were made, and how many answers differ from Keras' by more
                        than 1e-5 of the largest number in them
    max_difference      the largest difference, relative to the largest number
    memory              bytes: `first` and `last`, medians of the first and the last minute (of a
                        short run: its first and last fifth), and `slope`, bytes a minute, of the
                        straight line through all samples after the first minute

    python benchmarks/soak.py --output soak.json
"""

import json
import pathlib
import statistics
import tempfile
import threading
import time

import networks  # the files next to this one
import numpy as np
import timing
from absl import app, flags, logging

import keras_tesla as kt

_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.", required=True)
_SECONDS = flags.DEFINE_float("seconds", 300, "How long the threads call.", lower_bound=0.1)
_THREADS = flags.DEFINE_integer("threads", 4, "Threads that call.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of inputs and percentages.")
_MODE = flags.DEFINE_enum(
    "mode", "percentage_input", ["signatures", "percentage_input"], "What the file is."
)
_EXAMPLES = 32  # different inputs
_TOLERANCE = 1e-5  # of the largest number: float32 sums in another order


def soak(tesla, path, seconds: float, threads: int, seed: int) -> dict:
    """Calls one opened file from several threads.

    Args:
        tesla: The model that was exported.
        path: The .tflite file.
        seconds: How long.
        threads: How many threads.
        seed: Of inputs and percentages.

    Returns:
        What the module's documentation lists.
    """
    shape = tesla.network.input_shape[1:]
    x = np.random.default_rng(seed).standard_normal((_EXAMPLES, 1, *shape)).astype("float32")
    expected = {p: tesla.predict(x[:, 0], percentage=p, verbose=0) for p in tesla.percentages}
    model = kt.tflite.load(path)
    for p in model.percentages:
        model(x[0], percentage=p)  # opened before memory is read
    end = threading.Event()
    counts = [{"calls": 0, "wrong": 0, "max_difference": 0.0} for _ in range(threads)]
    failures: list[Exception] = []

    def call(number):
        random, count = np.random.default_rng([seed, number]), counts[number]
        try:
            while not end.is_set():
                i, p = random.integers(_EXAMPLES), int(random.choice(model.percentages))
                right = expected[p][i]
                got = model(x[i], percentage=p)[0]
                difference = float(np.abs(got - right).max() / np.abs(right).max())
                count["calls"] += 1
                count["wrong"] += not difference <= _TOLERANCE  # NaN is wrong, too
                count["max_difference"] = max(count["max_difference"], difference)
        except Exception as error:  # raised below, in the main thread
            failures.append(error)

    workers = [threading.Thread(target=call, args=(n,)) for n in range(threads)]
    for worker in workers:
        worker.start()
    samples, start = [], time.monotonic()
    while (passed := time.monotonic() - start) < seconds and not failures:
        samples.append((passed, _resident()))
        time.sleep(min(1.0, seconds / 50))
    end.set()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]
    return {
        "seconds": seconds,
        "calls": sum(c["calls"] for c in counts),
        "wrong": sum(c["wrong"] for c in counts),
        "max_difference": max(c["max_difference"] for c in counts),
        "memory": _memory(samples, seconds),
    }


def _resident() -> int:
    fields = pathlib.Path("/proc/self/status").read_text().split("VmRSS:")
    return int(fields[1].split()[0]) * 1024


def _memory(samples, seconds) -> dict:
    part = min(60, seconds / 5)
    times, sizes = np.array([t for t, _ in samples]), np.array([s for _, s in samples])
    late = times >= part
    return {
        "samples": len(samples),
        "first": int(statistics.median(sizes[times < part])),
        "last": int(statistics.median(sizes[times >= seconds - part])),
        "slope": round(60 * float(np.polyfit(times[late], sizes[late], 1)[0])),
    }


def main(_):
    tesla = networks.mlp()
    with tempfile.TemporaryDirectory() as directory:
        folder = pathlib.Path(directory) / "out"
        bundle = kt.tflite.export(tesla, folder, mode=_MODE.value)
        found = soak(tesla, bundle.path(100), _SECONDS.value, _THREADS.value, _SEED.value)
    row = {"network": tesla.network.name, "mode": _MODE.value, **found}
    result = {"rows": [row], "machine": timing.machine(threads=_THREADS.value)}
    print(json.dumps(result, indent=1))
    pathlib.Path(_OUTPUT.value).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
