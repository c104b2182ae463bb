r"""What in-place distillation brings at each percentage, for each kind of output.

The same network is trained with and without it from the same start, on the same batches:

    logits       digits, 10 classes, no activation
    softmax      the same with a softmax: both must agree
    binary       digits: odd or even, one sigmoid
    multi_label  digits: which of the seven segments of a display are lit, seven sigmoids
    regression   Friedman's first function with noise, one number

A row has the test figure of each seed and percentage (accuracy in percent; of `regression` the mean
squared error as a percentage of the targets' variance), for each `distillation`: its weight, 0 for
none. `gain` is the mean difference from no distillation on the same seed, more is better, and
`error` the standard error of that mean.

    python benchmarks/distillation.py --output distillation.json
"""

import json
import os
import pathlib
import statistics

import keras
import numpy as np
import timing  # the file next to this one
from absl import app, flags, logging
from sklearn import datasets

import keras_tesla as kt
from keras_tesla.training.distillation import InPlaceDistillation

_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.", required=True)
_SEEDS = flags.DEFINE_integer("seeds", 5, "How many seeds.", lower_bound=2)
_EPOCHS = flags.DEFINE_integer("epochs", 20, "Of the plain network and of TESLA.", lower_bound=1)
_TASKS = flags.DEFINE_list("tasks", "logits,softmax,binary,multi_label,regression", "See above.")
_STARTS = flags.DEFINE_list("starts", "converted,scratch", "Trained and converted, or fresh.")
_WEIGHTS = flags.DEFINE_list("weights", "0,1", "Shares of the divergence.")
_PERCENTAGES = [100, 75, 50, 25]
_SEGMENTS = "abcdef bc abdeg abcdg bcfg acdfg acdefg abc abcdefg abcdfg".split()  # of each digit


def data(task, seed):
    """Returns (x, y, x_test, y_test), a random half each."""
    if task == "regression":
        x, y = datasets.make_friedman1(2000, noise=1.0, random_state=seed)
        y = ((y - y.mean()) / y.std())[:, None]
    else:
        x, digit = datasets.load_digits(return_X_y=True)
        x = x / 16
        segments = np.array([[s in lit for s in "abcdefg"] for lit in _SEGMENTS], "float32")
        y = {"binary": digit[:, None] % 2, "multi_label": segments[digit]}.get(task, digit)
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order].astype("float32"), y[order].astype("float32")
    half = len(x) // 2
    return x[:half], y[:half], x[half:], y[half:]


def compile_arguments(task):
    """Returns (units, activation, loss, metric) of a task."""
    losses = keras.losses
    return {
        "logits": (10, None, losses.SparseCategoricalCrossentropy(from_logits=True), "accuracy"),
        "softmax": (10, "softmax", losses.SparseCategoricalCrossentropy(), "accuracy"),
        "binary": (1, "sigmoid", losses.BinaryCrossentropy(), "binary_accuracy"),
        "multi_label": (7, "sigmoid", losses.BinaryCrossentropy(), "binary_accuracy"),
        "regression": (1, None, losses.MeanSquaredError(), "mean_squared_error"),
    }[task]


def network(task, inputs):
    """Returns the plain network of a task."""
    units, activation, _, _ = compile_arguments(task)
    dense = keras.layers.Dense
    hidden = [dense(48, activation="relu") for _ in range(3)]
    return keras.Sequential([keras.Input((inputs,)), *hidden, dense(units, activation)])


class Trainer:
    """Trains one network again and again from other weights; its step is compiled once.

    Args:
        model: A compiled Keras or `TESLA` model that was not trained.
    """

    def __init__(self, model):
        self.model = model
        model.optimizer.build(model.trainable_variables)
        self._fresh = [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables]

    def fit(self, weights, x, y, seed, epochs):
        """Trains from `weights`, on batches that depend only on `seed`."""
        self.model.set_weights(weights)
        for variable, value in zip(self.model.optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        keras.utils.set_random_seed(seed)
        self.model.fit(x, y, epochs=epochs, verbose=0)


def starts_of(task, start, seeds, epochs) -> list:
    """Returns the weights of the network to train on, for each seed."""
    inputs = data(task, 0)[0].shape[1]
    model = network(task, inputs)
    model.compile(keras.optimizers.Adam(1e-3), compile_arguments(task)[2], jit_compile=True)
    trainer = Trainer(model)
    found = []
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        fresh = network(task, inputs)
        if start == "converted":
            trainer.fit(fresh.get_weights(), *data(task, seed)[:2], seed, epochs)
            fresh.set_weights(model.get_weights())
            fresh = kt.order_channels(fresh)
        found.append(fresh.get_weights())
    return found


def figures(task, weight, starts, epochs) -> list[dict]:
    """Returns {percentage: test figure in percent} of each seed."""
    x = data(task, 0)[0]
    _, _, loss, metric = compile_arguments(task)
    incomplete = kt.to_idp(network(task, x.shape[1]))  # has the weights of the plain one
    divergence = "mean_squared_error" if task == "regression" else "auto"  # refuses a regression
    distillation = InPlaceDistillation(weight, divergence=divergence) if weight else None
    tesla = kt.TESLA(incomplete, _PERCENTAGES, distillation=distillation)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, epochs * -(-len(x) // 32))
    tesla.compile(keras.optimizers.Adam(rate), loss, metrics=[metric])
    trainer, rows = Trainer(tesla), []
    for seed, weights in enumerate(starts):
        x, y, x_test, y_test = data(task, seed)
        trainer.fit(weights, x, y, seed, epochs)
        found = tesla.evaluate(x_test, y_test, verbose=0, return_dict=True)
        rows.append({p: 100 * found[f"p{p}_{metric}"] for p in _PERCENTAGES})
    return rows


def rows_of(task, start, weights, seeds, epochs) -> list[dict]:
    """Returns a row for each weight."""
    sign = -1 if task == "regression" else 1
    starts = starts_of(task, start, seeds, epochs)
    rows, plain = [], None
    for weight in weights:
        found = figures(task, weight, starts, epochs)
        plain = plain or found
        row = {"task": task, "start": start, "distillation": weight, "percentages": {}}
        for p in _PERCENTAGES:
            gains = [sign * (a[p] - b[p]) for a, b in zip(found, plain, strict=True)]
            row["percentages"][p] = {
                "mean": round(statistics.mean(f[p] for f in found), 2),
                "gain": round(statistics.mean(gains), 2),
                "error": round(statistics.stdev(gains) / seeds**0.5, 2),
                "seeds": [round(f[p], 3) for f in found],
            }
        cells = [
            f"{c['mean']:6.2f} ({c['gain']:+.2f} +- {c['error']:.2f})"
            for c in row["percentages"].values()
        ]
        logging.info("%s %s %s: %s", task, start, weight, "  ".join(cells))
        rows.append(row)
    return rows


def main(_):
    weights = sorted(float(w) for w in _WEIGHTS.value)
    if weights[0] != 0:
        raise app.UsageError("--weights must have 0: all others are compared with it.")
    rows = []
    for start in _STARTS.value:
        for task in _TASKS.value:
            rows += rows_of(task, start, weights, _SEEDS.value, _EPOCHS.value)
    result = {"rows": rows, "machine": timing.machine(os.cpu_count() or 1)}
    pathlib.Path(_OUTPUT.value).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
