r"""The networks of keras.applications, converted: what a percentage costs.

Each network, untrained, is made incomplete by `to_idp`, extracted at each percentage and converted
to a .tflite file of its own.

    multiply_adds   at p %, over those at 100 %
    latency         of a call at p %, over one at 100 %: one thread, XNNPACK, the median over the
                    rounds of ratios of interleaved calls; null with --norun
    left            how many layers were left as they are, by reason

    python benchmarks/applications.py --output applications.json [--networks ResNet50] [--size 96]
"""

import collections
import json
import pathlib
import statistics

import keras
import numpy as np
import timing  # the file next to this one
from absl import app, flags, logging

import keras_tesla as kt
from keras_tesla.extraction import extract
from keras_tesla.narrowing.plan import narrow
from keras_tesla.tflite import convert, runtime
from keras_tesla.tflite.measure.machine import describe

_NETWORKS = (
    *("VGG16", "ResNet50", "MobileNet", "MobileNetV2"),
    *("MobileNetV3Small", "EfficientNetB0", "DenseNet121"),
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.", required=True)
_NAMES = flags.DEFINE_list("networks", list(_NETWORKS), "Those to measure.")
_PERCENTAGES = flags.DEFINE_list("percentages", ["50", "30", "10"], "Those besides 100.")
_SIZE = flags.DEFINE_integer("size", 96, "Height and width of the images.", lower_bound=32)
_RUN = flags.DEFINE_bool("run", True, "Whether to measure latency, on an idle machine.")
_ROUNDS = flags.DEFINE_integer("rounds", 30, "Rounds of measurement.", lower_bound=1)


def _call(model):
    """Returns a function that calls the .tflite file of a percentage."""
    made = runtime.interpreter(convert.convert(model))
    runner = made.get_signature_runner()
    (x,) = model.inputs
    image = np.random.default_rng(0).uniform(0, 255, x.shape).astype("float32")
    return lambda: runner(**{x.name: image})


def _latency(models):
    """Returns the ratios to 100 % and the seconds at 100 %."""
    seconds = timing.interleaved({p: _call(model) for p, model in models.items()}, _ROUNDS.value)
    ratios = {str(p): round(timing.median_ratio(seconds[p], seconds[100]), 4) for p in models}
    return ratios, float(f"{statistics.median(seconds[100]):.4g}")


def _row(name):
    keras.utils.set_random_seed(0)
    make = getattr(keras.applications, name)
    model = make(weights=None, input_shape=(_SIZE.value, _SIZE.value, 3))
    percentages = [100, *(int(p) for p in _PERCENTAGES.value)]
    converted = kt.to_idp(model, percentages)
    tesla = kt.TESLA(converted, percentages)
    models = {p: extract(narrow(tesla.graph, p), f"p{p}", batch_size=1) for p in percentages}
    costs = {p: kt.analysis.multiply_adds(model) for p, model in models.items()}
    latency, seconds = _latency(models) if _RUN.value else (None, None)
    left = collections.Counter(
        row.reason for row in converted.conversion_report if row.became == row.kind
    )
    return {
        "network": name,
        "size": _SIZE.value,
        "multiply_adds_at_100": costs[100],
        "multiply_adds": {str(p): round(costs[p] / costs[100], 4) for p in percentages},
        "latency": latency,
        "seconds_at_100": seconds,
        "left": dict(left),
    }


def _print(rows):
    columns = [str(p) for p in (100, *map(int, _PERCENTAGES.value))]
    print("network".ljust(18) + "".join(f"{p + ' %':>16}" for p in columns))
    for row in rows:
        ratios = (row["multiply_adds"], row["latency"])
        cells = [" / ".join(f"{ratio[p]:.3f}" for ratio in ratios if ratio) for p in columns]
        print(row["network"].ljust(18) + "".join(f"{cell:>16}" for cell in cells))


def main(_):
    unknown = set(_NAMES.value) - set(_NETWORKS)
    if unknown:
        raise app.UsageError(f"--networks are among {_NETWORKS}. Received: {sorted(unknown)}")
    rows = []
    for name in _NAMES.value:
        rows.append(_row(name))
        keras.backend.clear_session()
        _print(rows[-1:])
    result = {"rows": rows, "machine": describe(1, ("keras", "tensorflow", "ai-edge-litert"))}
    pathlib.Path(_OUTPUT.value).write_text(json.dumps(result, indent=1) + "\n")
    _print(rows)


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
