r"""What one file for all percentages costs, relative to files made for one percentage only.

Each row is a percentage of a file (`network`, `mode`, `storage`, `quantization`):

    bytes_ratio         the file over the float32 file of the network at 100 % only
    latency_ratio       a call over one of the percentage's own file with the same quantization,
                        one thread, median over the rounds of ratios of alternating calls
    latency_extra       the median of the differences, seconds
    max_abs_difference  between the file's outputs and Keras'
    accuracy, accuracy_own_file   on the test split, of the file and of the percentage's own file;
                        only where `--cnn` names a trained network

`memory` has, for each percentage, the growth of the process's resident memory from before the file
is opened until three calls were made, bytes, and the ratio to the percentage's own file:

    standalone    opened as a standalone file, `keras_tesla.tflite.load`
    second_start  the file of all expanded into a folder, with XNNPACK's weight cache filled by an
                  earlier start, over the own file with its cache

The networks are in `networks.py`.

    python benchmarks/one_file.py --output one_file.json
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import keras
import networks  # the files next to this one
import numpy as np
import timing
from absl import app, flags, logging

import keras_tesla as kt
from keras_tesla.tflite import runtime

_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.", required=True)
_CNN = flags.DEFINE_string("cnn", None, "Trained weights of `cnn`, from networks.py.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of TFDS, for a trained `cnn`.")
_ROUNDS = flags.DEFINE_integer("rounds", 100, "Rounds of measurement.", lower_bound=1)
_OPENINGS = flags.DEFINE_integer("openings", 5, "Times that files are opened.", lower_bound=1)
_NETWORKS = flags.DEFINE_list("networks", ["mlp", "cnn", "cnn_bn"], "Those to measure.")
_SECONDS = 2e-3  # calls that take less are timed together

# (mode, storage, quantization) for each network.
_FLOAT = [("signatures", "shared", None), ("percentage_input", "shared", None)]
_CONSTRUCTIONS = {
    "mlp": [*_FLOAT, ("signatures", "plain", None), ("signatures", "shared", "dynamic_range")],
    "cnn": [
        *_FLOAT,
        ("signatures", "plain", None),
        ("signatures", "shared", "dynamic_range"),
        ("signatures", "shared", "int8"),
        ("percentage_input", "shared", "int8"),
        ("signatures", "plain", "int8"),
    ],
    "cnn_bn": [*_FLOAT, ("signatures", "shared", "int8")],
}


def _caller(made, key, percentage):
    """Returns a function that runs a signature some times, inputs set, and for how long once."""
    runner = made.get_signature_runner(key)
    random = np.random.default_rng(0)
    feeds = {
        name: np.array([percentage], np.int32)
        if name == "percentage"
        else random.standard_normal(detail["shape"]).astype(detail["dtype"])
        for name, detail in runner.get_input_details().items()
    }
    runner(**feeds)
    # A Python runner resizes, allocates and copies at each call; what is measured is the file.
    invoke, subgraph = made._interpreter.Invoke, runner._subgraph_index

    def call(times):
        for _ in range(times):
            invoke(subgraph)

    return call


def _latencies(content, own, entries, mode):
    """{percentage: (ratio, seconds, difference in seconds)}, medians over rounds and openings."""
    calls: dict = {}
    for _ in range(_OPENINGS.value):
        made = runtime.interpreter(content)
        for entry in entries:
            p = entry.percentage
            key = "serving_default" if mode == "percentage_input" else entry.signature
            one, both = runtime.interpreter(own[p]), _caller(made, key, p)
            single = _caller(one, None, p)
            begin = time.perf_counter()
            single(5)
            times = max(1, int(_SECONDS / ((time.perf_counter() - begin) / 5)))
            measured = timing.interleaved(
                {"file": lambda n=times, f=both: f(n), "own": lambda n=times, f=single: f(n)},
                -(-_ROUNDS.value // _OPENINGS.value),
            )
            calls.setdefault(p, []).extend(
                (a / times, b / times)
                for a, b in zip(measured["file"], measured["own"], strict=True)
            )
    return {
        p: (
            statistics.median(a / b for a, b in pairs),
            statistics.median(a for a, _ in pairs),
            statistics.median(a - b for a, b in pairs),
        )
        for p, pairs in calls.items()
    }


def _accuracy(content, key, split):
    outputs = runtime.run(runtime.interpreter(content), {"image": split.x}, key)
    return float(np.mean(outputs["logits"].argmax(-1) == split.y))


def _rows(name, tesla, folder, data):
    typical = None
    if data is not None:
        typical = data.train.x[:300]
    else:
        shape = tesla.network.input_shape[1:]
        typical = np.random.default_rng(1).standard_normal((100, *shape)).astype("float32")
    own = {}
    for quantization in dict.fromkeys(q for *_, q in _CONSTRUCTIONS[name]):
        bundle = kt.tflite.export(
            tesla,
            folder / f"{name}_{quantization}",
            quantization=quantization,
            representative_data=typical if quantization == "int8" else None,
            inputs=typical[:16],
        )
        own[quantization] = {
            e.percentage: bundle.path(e.percentage).read_bytes() for e in bundle.entries
        }
    whole = len(own[None][100])
    rows = []
    for mode, storage, quantization in _CONSTRUCTIONS[name]:
        bundle = kt.tflite.export(
            tesla,
            folder / f"{name}_{mode}_{storage}_{quantization}",
            mode=mode,
            storage=storage,
            quantization=quantization,
            representative_data=typical if quantization == "int8" else None,
            inputs=typical[:16],
        )
        content = bundle.path(100).read_bytes()
        latencies = _latencies(content, own[quantization], bundle.entries, mode)
        for entry in bundle.entries:
            p = entry.percentage
            ratio, seconds, extra = latencies[p]
            row = {
                "network": name,
                "mode": mode,
                "storage": storage,
                "quantization": quantization,
                "percentage": p,
                "bytes": len(content),
                "bytes_ratio": round(len(content) / whole, 4),
                "latency": round(seconds, 9),
                "latency_ratio": round(ratio, 3),
                "latency_extra": round(extra, 9),
                "max_abs_difference": entry.max_abs_difference,
            }
            if data is not None and quantization == "int8" and mode == "signatures":
                row["accuracy"] = _accuracy(content, entry.signature, data.test)
                row["accuracy_own_file"] = _accuracy(own[quantization][p], None, data.test)
            rows.append(row)
        _print(rows[-len(bundle.entries) :])
    return rows


def _print(rows):
    first = rows[0]
    ratios = [r["latency_ratio"] for r in rows]
    print(
        f"{first['network']:<7}{first['mode']:<17}{first['storage']:<7}"
        f"{first['quantization'] or 'float32':<14} bytes {first['bytes_ratio']:.3f}  latency "
        f"max {max(ratios):.3f} median {statistics.median(ratios):.3f}  extra max "
        f"{1e6 * max(r['latency_extra'] for r in rows):.1f} us",
        flush=True,
    )


# Memory. A process for each figure: what one opened, the next would find warm.

_CHILD = """
import json, pathlib, sys
import numpy as np
import keras_tesla as kt
from keras_tesla.tflite import runtime
how, path, percentage, cache, shape = sys.argv[1:]
percentage = int(percentage)
def resident():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":") for line in lines)
    return {name: int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")}
x = np.zeros(json.loads(shape), "float32")
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = resident()["VmRSS"]
if how == "own":
    made = runtime.Interpreter(model_path=path, num_threads=1)
    made.allocate_tensors()
    call = lambda: made.get_signature_runner()(image=x)
elif how == "standalone":
    model = kt.tflite.load(path)
    call = lambda: model(x, percentage)
else:
    model = kt.tflite.load(path, cache_dir=cache)
    call = lambda: model(x, percentage)
for _ in range(3):
    call()
after = resident()
print(json.dumps({"resident": after["VmRSS"] - before, "peak": after["VmHWM"] - before}))
"""


def _child(how, path, percentage, cache):
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, how, str(path), str(percentage), str(cache), _shape(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _memory(name, folder):
    own = folder / f"{name}_None"
    combined = folder / f"{name}_percentage_input_shared_None" / "model.tflite"
    found = []
    for p in (100, 50, 10):
        single = own / f"p{p}.tflite"
        for what, mine, other in (
            ("standalone", ("standalone", combined), ("own", single)),
            ("second_start", ("cache", combined), ("cache", single)),
        ):
            figures = []
            for number, (how, path) in enumerate((mine, other)):
                cache = folder / f"cache_{number}"
                if how == "cache":
                    _child(how, path, p, cache)  # the first start fills the cache
                figures.append(min((_child(how, path, p, cache) for _ in range(2)), key=_peak))
            found.append(
                {
                    "network": name,
                    "what": what,
                    "percentage": p,
                    "resident": figures[0]["resident"],
                    "ratio": round(figures[0]["resident"] / figures[1]["resident"], 3),
                    "peak_ratio": round(_peak(figures[0]) / _peak(figures[1]), 3),
                }
            )
            print(found[-1], flush=True)
    return found


def _shape(path):
    return str(kt.tflite.read(path.parent).inputs["image"]["shape"])


def _peak(figures):
    return figures["peak"]


def main(_):
    data = kt.data.load("cifar10", data_dir=_DATA_DIR.value) if _CNN.value else None
    rows, memory = [], []
    with tempfile.TemporaryDirectory() as directory:
        folder = pathlib.Path(directory)
        for name in _NETWORKS.value:
            if name == "mlp":
                tesla = networks.mlp()
            elif name == "cnn" and _CNN.value:
                tesla = keras.saving.load_model(_CNN.value)
            else:
                tesla = networks.cnn(batch_norm=name == "cnn_bn")
            rows += _rows(name, tesla, folder, data if name == "cnn" else None)
            memory += _memory(name, folder)
    result = {"rows": rows, "memory": memory, "machine": timing.machine(threads=1)}
    pathlib.Path(_OUTPUT.value).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
