r"""What stands between a network of keras.applications and its first training step.

Each network runs plain, and converted at each set of percentages, each in a process of its own:

    to_idp      seconds until the network is incomplete
    construct   until `TESLA` is made and compiled
    first       the first training step: tracing, and compiling where the backend does
    second      the next one, of the same shapes
    others      the first step after `activate` with fewer percentages, where there are several
    peak_bytes  of the process's resident memory, after all of them

The seconds are those of the processor, of all threads: a busy machine changes them little.
`of_single` divides the sum of the first three, and the peak, by those of the converted network at
its first set of percentages, which should be 100 alone.

    python benchmarks/first_step.py --output first_step.json [--networks=NASNetMobile]
"""

import json
import os
import pathlib
import subprocess
import sys
import time

import timing  # the file next to this one
from absl import app, flags

# {name: height and width of the images}
NETWORKS = {"MobileNetV2": 96, "DenseNet121": 64, "NASNetMobile": 64}
_BATCH = 8

_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")
_NAMES = flags.DEFINE_list("networks", list(NETWORKS), f"Some of {', '.join(NETWORKS)}.")
_BACKEND = flags.DEFINE_string("backend", "tensorflow", "Keras backend.")
_SETS = flags.DEFINE_list(
    "percentages", ["100", "100-50-25", "100-90-80-70-60-50-40-30-20-10"], "Sets to train at."
)
_THREADS = flags.DEFINE_integer("threads", 2, "Threads that a backend may use.", lower_bound=1)
_CHILD = flags.DEFINE_list("child", None, "network, set or plain: measure this here.")


def _measure(name, percentages) -> dict:
    """Returns the figures of one network; `percentages`: empty for plain Keras."""
    import keras
    import numpy as np

    import keras_tesla as kt

    size, row = NETWORKS[name], {}
    start = time.process_time()

    def lap(stage):
        nonlocal start
        row[stage], start = time.process_time() - start, time.process_time()

    model = getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None
    )
    x = np.random.default_rng(0).random((_BATCH, size, size, 3), "float32")
    y = np.arange(_BATCH) % 10
    lap("build")
    if percentages:
        model = kt.to_idp(model, percentages)
        lap("to_idp")
        model = kt.TESLA(model, percentages)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    lap("construct")
    model.train_on_batch(x, y)
    lap("first")
    model.train_on_batch(x, y)
    lap("second")
    if len(percentages) > 1:
        model.activate(percentages[::2])
        lap("activate")
        model.train_on_batch(x, y)
        lap("others")
    peak = next(
        1024 * int(line.split()[1])
        for line in pathlib.Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return {**{stage: round(seconds, 2) for stage, seconds in row.items()}, "peak_bytes": peak}


def _in_child(name, percentages) -> dict:
    environment = {
        **os.environ,
        **timing.thread_environment(_THREADS.value),
        "KERAS_BACKEND": _BACKEND.value,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, __file__, f"--child={name},{percentages}"]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    row = json.loads(done.stdout.splitlines()[-1])
    return {"network": name, "backend": _BACKEND.value, "percentages": percentages, **row}


def _until_first(row) -> float:
    return sum(row.get(stage, 0) for stage in ("to_idp", "construct", "first"))


def main(_):
    if _CHILD.value:
        name, percentages = _CHILD.value
        chosen = [] if percentages == "plain" else [int(p) for p in percentages.split("-")]
        print(json.dumps(_measure(name, chosen)))
        return
    if not _OUTPUT.value:
        raise app.UsageError("--output is missing: the JSON file to write.")
    rows = []
    for name in _NAMES.value:
        single = None
        for percentages in ["plain", *_SETS.value]:
            row = _in_child(name, percentages)
            if percentages != "plain":
                single = single or row
                row["of_single"] = {
                    "seconds": round(_until_first(row) / _until_first(single), 3),
                    "peak": round(row["peak_bytes"] / single["peak_bytes"], 3),
                }
            rows.append(row)
            print(row, flush=True)
            content = {"rows": rows, "machine": timing.machine(_THREADS.value)}
            pathlib.Path(_OUTPUT.value).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
