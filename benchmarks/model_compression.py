r"""A narrower network compared with the compression of tensorflow-model-optimization.

A CNN is trained with TESLA on Fashion-MNIST. Rows start from its weights:

    full            the network at 100 %, as it is
    tesla           the network at p %, as it is
    tesla_tuned     the same, trained at this percentage only, for as many steps as the rows below
    tesla_int8      the network at p %, quantized after training
    tesla_qat       the network at p %, trained with quantization in mind
    pruned          the full network with as many multiply-adds by nonzero weights as at p %
    pruned_2_4      the full network, two of four weights zero
    clustered       the full network, `--clusters` values in a kernel
    full_int8, full_qat   the full network, quantized after and in training

    multiply_adds    by nonzero weights, over those of `full`
    accuracy         of the .tflite file on the test split, which is read once
    bytes, zipped    of the .tflite file, and compressed by DEFLATE as in an app's package
    latency_ratio    a call over one of `full`'s file, one thread, median over the rounds of ratios
                     of interleaved calls

    python benchmarks/model_compression.py --output model_compression.json --data_dir DIR
"""

import functools
import json
import pathlib
import time
import zlib

import keras
import numpy as np
import timing  # the file next to this one
from absl import app, flags, logging

import keras_tesla as kt
from keras_tesla import compression
from keras_tesla.analysis.cost import multiply_adds
from keras_tesla.tflite import runtime
from keras_tesla.tflite.measure.machine import describe

_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.", required=True)
_DATASET = flags.DEFINE_string("dataset", "fashion_mnist", "As in `keras_tesla.data.load`.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of TFDS; default: TFDS_DATA_DIR's.")
_PERCENTAGES = flags.DEFINE_list("percentages", ["50", "30"], "Those to compare at.")
_STEPS = flags.DEFINE_integer("steps", 1000, "Steps of TESLA.", lower_bound=1)
_TUNE = flags.DEFINE_integer("tune_steps", 300, "Steps of each compression.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch_size", 64, "Images a step.", lower_bound=1)
_CLUSTERS = flags.DEFINE_integer("clusters", 16, "Distinct values in a kernel.", lower_bound=2)
_ROUNDS = flags.DEFINE_integer("rounds", 100, "Rounds of measurement.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of weights and order.")
_PACKAGES = (
    *("keras", "tensorflow", "ai-edge-litert"),
    *("tf_keras", "tensorflow-model-optimization"),
)
_SECONDS = 2e-3  # calls that take less are timed together
_REPRESENTATIVE = 300


def _network(shape, classes, percentages):
    def normalized(y):
        y = kt.layers.IDPBatchNormalization(percentages, momentum=0.9)(y)
        return keras.layers.ReLU()(y)

    x = keras.Input(shape, name="image")
    y = normalized(keras.layers.Conv2D(16, 3, padding="same", use_bias=False)(x))
    for width in (32, 64):
        y = keras.layers.MaxPooling2D()(y)
        y = normalized(kt.layers.IDPConv2D(width, 3, padding="same", use_bias=False)(y))
    y = keras.layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, kt.layers.IDPDense(classes, name="logits")(y), name="cnn")


def _trained(data, percentages):
    tesla = kt.TESLA(_network(data.train.x.shape[1:], data.classes, percentages), percentages)
    tesla.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, _STEPS.value)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    stream = kt.data.batches(data.train, _BATCH.value, _SEED.value)
    tesla.fit(stream, steps_per_epoch=_STEPS.value, verbose=0)
    return tesla


def _tuned(model, data, callbacks=()):
    """Trains a tf_keras model; the learning rate falls to zero, from the same for all."""
    import tf_keras

    schedule = tf_keras.optimizers.schedules.CosineDecay(1e-3, _TUNE.value)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(schedule), loss)
    stream = kt.data.batches(data.train, _BATCH.value, _SEED.value + 1)
    model.fit(stream, steps_per_epoch=_TUNE.value, callbacks=list(callbacks), verbose=0)
    return model


def _pruned(wrapped, data):
    return compression.strip(_tuned(wrapped, data, [compression.pruning_callback()]))


def _nonzero(model, counterpart):
    """Multiply-adds by nonzero weights, of a tf_keras model with the layers of a Keras one."""
    total = 0
    for layer in counterpart.layers:
        if hasattr(layer, "kernel"):
            single = keras.Sequential([keras.Input(layer.input.shape[1:]), layer])
            kernel = model.get_layer(layer.name).kernel.numpy()
            total += multiply_adds(single) * np.mean(kernel != 0)
    return total


def _constructions(tesla, data, percentages):
    """Yields (method, percentage, share of the multiply-adds, .tflite file)."""
    typical = data.train.x[:_REPRESENTATIVE]
    file = functools.partial(compression.to_tflite, inputs=typical[:16])
    int8 = functools.partial(
        compression.to_tflite, quantization="int8", representative_data=typical
    )
    full = tesla.at(100)
    whole = multiply_adds(full)
    yield "full", 100, 1.0, file(full)
    for p in percentages:
        narrow = tesla.at(p)
        share = multiply_adds(narrow) / whole
        yield "tesla", p, share, file(narrow)
        yield "tesla_tuned", p, share, file(_tuned(compression.to_tf_keras(narrow), data))
        pruned = _pruned(compression.prune(full, 1 - share, _TUNE.value * 3 // 4), data)
        yield "pruned", p, _nonzero(pruned, full) / whole, file(pruned)
        yield "tesla_int8", p, share, int8(narrow)
        yield "tesla_qat", p, share, file(_tuned(compression.quantization_aware(narrow), data))
    pruned = _pruned(compression.prune_2_4(full), data)
    yield "pruned_2_4", 100, _nonzero(pruned, full) / whole, file(pruned)
    clustered = compression.strip(_tuned(compression.cluster(full, _CLUSTERS.value), data))
    yield "clustered", 100, 1.0, file(clustered)
    yield "full_int8", 100, 1.0, int8(full)
    yield "full_qat", 100, 1.0, file(_tuned(compression.quantization_aware(full), data))


def _accuracy(content, split):
    outputs = runtime.run(runtime.interpreter(content), {"image": split.x})
    return float(np.mean(outputs["logits"].argmax(-1) == split.y))


def _caller(content):
    """Returns a function that runs a file some times, its input set."""
    made = runtime.interpreter(content)
    made.set_tensor(made.get_input_details()[0]["index"], np.ones(_shape(made), "float32"))
    made.invoke()
    begin = time.perf_counter()
    made.invoke()
    times = max(1, int(_SECONDS / (time.perf_counter() - begin)))

    def call():
        begin = time.perf_counter()
        for _ in range(times):
            made.invoke()
        return (time.perf_counter() - begin) / times

    return call


def _shape(made):
    return made.get_input_details()[0]["shape"]


def _latencies(contents):
    """Seconds a call in each round, for each file; every round calls all of them."""
    calls = [_caller(content) for content in contents]
    seconds: list = [[] for _ in calls]
    for number in range(_ROUNDS.value):
        order = list(enumerate(calls))
        for index, call in order[:: 1 if number % 2 == 0 else -1]:
            seconds[index].append(call())
    return seconds


def main(_):
    keras.utils.set_random_seed(_SEED.value)
    data = kt.data.load(_DATASET.value, seed=_SEED.value, data_dir=_DATA_DIR.value)
    percentages = sorted(map(int, _PERCENTAGES.value), reverse=True)
    tesla = _trained(data, [100, *percentages])
    found = list(_constructions(tesla, data, percentages))
    seconds = _latencies([content for *_, content in found])
    rows = []
    print(
        f"{'method':<13}{'p':>4}{'MACs':>7}{'accuracy':>10}{'bytes':>8}{'zipped':>8}{'latency':>9}"
    )
    for (method, p, share, content), of_file in zip(found, seconds, strict=True):
        row = {
            "method": method,
            "percentage": p,
            "multiply_adds": round(share, 4),
            "accuracy": round(_accuracy(content, data.test), 4),
            "bytes": len(content),
            "zipped": len(zlib.compress(content, 9)),
            "latency_ratio": round(timing.median_ratio(of_file, seconds[0]), 3),
        }
        rows.append(row)
        print(
            f"{method:<13}{p:>4}{share:>7.3f}{row['accuracy']:>10.4f}{row['bytes']:>8}"
            f"{row['zipped']:>8}{row['latency_ratio']:>9.3f}",
            flush=True,
        )
    result = {
        "rows": rows,
        "dataset": _DATASET.value,
        "steps": _STEPS.value,
        "tune_steps": _TUNE.value,
        "clusters": _CLUSTERS.value,
        "machine": describe(1, _PACKAGES),
    }
    pathlib.Path(_OUTPUT.value).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
