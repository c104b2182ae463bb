r"""What a training step at several percentages costs, in steps of plain Keras.

Networks and methods are those of `steps.py`. Each row is a method's step divided by one step of the
plain network with the same backend, `jit_compile`, optimizer (Adam) and loss; `us_net` by
`us_plain`. `mac_ratio` is what that would be if only multiply-adds counted.

Each network, backend and number of percentages has a process of its own, in which the methods take
turns; the ratio is the median of the rounds' ratios.

    python benchmarks/training_step.py --output training_step.json
    python benchmarks/training_step.py --output some.json --networks=cnn --backends=tensorflow
"""

import gc
import itertools
import json
import os
import pathlib
import subprocess
import sys

import timing  # the file next to this one
from absl import app, flags

_BACKENDS = ("tensorflow", "tensorflow_xla", "jax", "torch")
_NETWORKS = ("mlp", "cnn", "vgg16", "mobilenet_v2")

_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")
_RUN = flags.DEFINE_list("backends", list(_BACKENDS), f"Some of {', '.join(_BACKENDS)}.")
_NAMES = flags.DEFINE_list("networks", list(_NETWORKS), f"Some of {', '.join(_NETWORKS)}.")
_COUNTS = flags.DEFINE_list("counts", ["4", "10"], "Numbers of percentages: 4, 10.")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "Rounds of measurement.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", 2, "Threads that a backend may use.", lower_bound=1)
_MEMORY = flags.DEFINE_bool("memory", False, "Measure peak memory instead of time.")
_CHILD = flags.DEFINE_list("child", None, "network, backend, count[, method]: measure this here.")
flags.register_validator(
    "backends", lambda names: set(names) <= set(_BACKENDS), f"must be among {', '.join(_BACKENDS)}"
)
flags.register_validator(
    "networks", lambda names: set(names) <= set(_NETWORKS), f"must be among {', '.join(_NETWORKS)}"
)
flags.register_validator("counts", lambda counts: set(counts) <= {"4", "10"}, "must be among 4, 10")


def _times(network, backend, count):
    """Returns the rows of one network on one backend, which `KERAS_BACKEND` names."""
    import steps

    _use_threads()
    repeat = 5 if network == "mlp" else 1
    runs = {
        method: steps.stepper(network, method, count, _jit(backend), repeat)
        for method in steps.METHODS
    }
    seconds = timing.interleaved({k: run for k, run in runs.items() if run}, _ROUNDS.value)
    mac_ratios = steps.multiply_adds(steps.tesla_model(network, count))
    rows = []
    for method, mac_ratio in mac_ratios.items():
        if method not in seconds:
            continue
        reference = "us_plain" if method == "us_net" else "plain"
        rows.append(
            {
                "method": method,
                "ratio_to_plain_step": timing.median_ratio(seconds[method], seconds[reference]),
                "mac_ratio": mac_ratio,
                "step_ms": 1000 * timing.median(seconds[method]) / repeat,
                "plain_step_ms": 1000 * timing.median(seconds[reference]) / repeat,
                "rounds": _ROUNDS.value,
            }
        )
    return rows


def _peak(network, backend, count, method):
    """Returns the peak memory of a step, in bytes.

    That is what a step allocates on top of what is resident before and after it, and the weights
    and the optimizer's variables. The framework, and the program that was traced or compiled, are
    not counted.
    """
    import steps

    _use_threads()
    kept: list = []
    run = steps.stepper(network, method, count, _jit(backend), kept=kept)
    if run is None:
        return []
    run()
    gc.collect()
    before = _status("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    for _ in range(3):
        run()
    return [{"method": method, "peak_bytes": _status("VmHWM") - before + sum(kept)}]


def _status(key):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


def _jit(backend):
    return backend in ("tensorflow_xla", "jax")  # torch runs eagerly unless told otherwise


def _use_threads():
    import keras

    if keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(_THREADS.value)


def _in_child(*child):
    environment = {
        **os.environ,
        **timing.thread_environment(_THREADS.value),
        "KERAS_BACKEND": child[1].removesuffix("_xla"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",  # the numbers are those of the CPU
        "JAX_PLATFORMS": "cpu",
    }
    if _MEMORY.value:
        # Memory of tensors goes back to the system at once, so that what is resident is in use.
        environment["MALLOC_MMAP_THRESHOLD_"] = "65536"
        environment["TF_ENABLE_ONEDNN_OPTS"] = "0"  # its allocator keeps what it once had
    own = {
        "child": ",".join(child),
        "rounds": _ROUNDS.value,
        "threads": _THREADS.value,
        "memory": _MEMORY.value,
    }
    command = [sys.executable, __file__, *(f"--{k}={v}" for k, v in own.items())]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    rows = json.loads(done.stdout.splitlines()[-1])
    return [_row(*child, **row) for row in rows]


def _row(network, backend, count, _method="", **figures):
    return {
        "network": network,
        "backend": backend.removesuffix("_xla"),
        "jit": _jit(backend),
        "percentages": int(count),
        **{k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()},
    }


def _measured(network, backend, count):
    if not _MEMORY.value:
        return _in_child(network, backend, count)
    methods = ["plain", "tesla"] + ["us_plain", "us_net"] * (backend == "torch")
    rows = [row for method in methods for row in _in_child(network, backend, count, method)]
    peaks = {row["method"]: row["peak_bytes"] for row in rows}
    for row in rows:
        reference = "us_plain" if row["method"].startswith("us_") else "plain"
        row["ratio_to_plain_step"] = round(row["peak_bytes"] / peaks[reference], 3)
    return [row for row in rows if "plain" not in row["method"]]


def _write(path: pathlib.Path, rows):
    """Writes JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    content = {"rows": rows, "machine": timing.machine(_THREADS.value)}
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    unfinished.replace(path)


def main(_):
    if _CHILD.value:
        measure = _peak if _MEMORY.value else _times
        network, backend, count, *method = _CHILD.value
        print(json.dumps(measure(network, backend, int(count), *method)))
        return
    if not _OUTPUT.value:
        raise app.UsageError("--output is missing: the JSON file to write.")
    rows = []
    for network, backend, count in itertools.product(_NAMES.value, _RUN.value, _COUNTS.value):
        for row in _measured(network, backend, count):
            rows.append(row)
            print(row, flush=True)
        _write(pathlib.Path(_OUTPUT.value), rows)


if __name__ == "__main__":
    app.run(main)
