r"""What a training step at ten percentages costs, in steps of plain Keras.

The network is the MLP 784-512-512-10, the batch 128, the optimizer Adam. Rows:

    tesla     one TESLA step at 100, 90, .., 10 %: `Dense(512)`, `IDPDense(512)`, `IDPDense(10)`
    mask      the same training in stock Keras: zeros in place of slices, one output a percentage
    separate  one step of each of the ten plain networks `tesla.at(p)`, one after the other

each divided by one step of the plain full-width network of stock layers, with the same backend,
`jit_compile`, optimizer and loss. `mac_ratio` is what that would be if only multiply-adds counted.
For TESLA, with M_p those of `tesla.at(p)` and S_p the part of M_p in the layers that do not depend
on the percentage (here the first one, which is computed once, at its full width):

    mac_ratio = (S_100 + sum over p of (M_p - S_p)) / M_100

The train function that `fit` calls is measured, on a batch that is on the device already. `fit` and
`train_on_batch` would add the same input pipeline and read-out of logs to both sides, which hides a
part of the ratio. Steps are queued and the last loss is awaited. Each backend has a process of its
own, in which the methods take turns; the ratio is the median of the rounds' ratios.

    python benchmarks/training_step.py --output training_step.json
"""

import itertools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import timing  # the file beside this one
from absl import app, flags

_BACKENDS = ("tensorflow_xla", "tensorflow", "jax", "torch")
_PERCENTAGES = tuple(range(100, 0, -10))
_NETWORK = (784, 512, 512, 10)
_BATCH = 128

_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")
_RUN = flags.DEFINE_list("backends", list(_BACKENDS), f"Some of {', '.join(_BACKENDS)}.")
_ROUNDS = flags.DEFINE_integer("rounds", 30, "Rounds of measurement.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 5, "Steps of each method in a round.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", 2, "Threads that a backend may use.", lower_bound=1)
_CHILD = flags.DEFINE_enum(
    "child", None, _BACKENDS, "Measure this in the present process and print the rows."
)
flags.register_validator(
    "backends", lambda names: set(names) <= set(_BACKENDS), f"must be among {', '.join(_BACKENDS)}"
)


def _plain(keras):
    _, first, second, classes = _NETWORK
    return keras.Sequential(
        [
            keras.Input(_NETWORK[:1]),
            keras.layers.Dense(first, activation="relu"),
            keras.layers.Dense(second, activation="relu"),
            keras.layers.Dense(classes),
        ]
    )


def _tesla(keras, kt):
    _, first, second, classes = _NETWORK
    model = keras.Sequential(
        [
            keras.Input(_NETWORK[:1]),
            keras.layers.Dense(first, activation="relu"),
            kt.layers.IDPDense(second, activation="relu"),
            kt.layers.IDPDense(classes),
        ]
    )
    return kt.TESLA(model, _PERCENTAGES)


def _masked(keras, kt):
    """The training of `_tesla` with stock layers: inputs that are left out are zero."""
    inputs = keras.Input(_NETWORK[:1])
    first, second, last = _plain(keras).layers

    def kept(x, percentage):
        mask = np.arange(x.shape[-1]) < kt.active_terms(x.shape[-1], percentage)
        return keras.layers.Rescaling(mask.astype("float32"))(x)

    x = first(inputs)
    outputs = {f"p{p}": last(kept(second(kept(x, p)), p)) for p in _PERCENTAGES}
    return keras.Model(inputs, outputs)


def _stepper(keras, model, x, y, jit, steps, outputs=()):
    """Returns a function that takes `steps` training steps and waits for the last loss.

    Args:
        keras: The module.
        model: Keras model; compiled here.
        x: Array, a batch of inputs.
        y: Array, the labels.
        jit: Bool, `jit_compile`.
        steps: Int.
        outputs: The names of the model's outputs if it has several; `y` is for each of them.
    """
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if outputs:
        loss, y = dict.fromkeys(outputs, loss), dict.fromkeys(outputs, y)
    model.compile("adam", loss, jit_compile=jit)
    model.train_on_batch(x, y)  # creates all state and the train function
    batch = keras.tree.map_structure(keras.ops.convert_to_tensor, (x, y))
    state = ()
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    elif keras.backend.backend() == "jax":
        batches = itertools.repeat(batch)
        parts = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        # Copies: the train function gives the buffers away.
        state = tuple([keras.ops.copy(v.value) for v in part] for part in parts)
    else:
        batches = [batch]

    def run():
        nonlocal state
        for _ in range(steps):
            if state:
                logs, state = model.train_function(state, batches)
            else:
                logs = model.train_function(batches)
        float(keras.ops.convert_to_numpy(logs["loss"]))

    return run


def _mac_ratios(keras, tesla):
    """Returns {method: multiply-adds over those of the plain network}."""
    from keras_tesla.analysis.cost import multiply_adds

    def first(narrowed):  # the multiply-adds before the first incomplete layer
        shared = keras.Model(narrowed.inputs, narrowed.layers[1].output)
        return multiply_adds(shared)

    narrowed = [tesla.at(p) for p in _PERCENTAGES]
    total = [multiply_adds(model) for model in narrowed]
    own = [t - first(model) for t, model in zip(total, narrowed, strict=True)]
    shared = first(narrowed[0])
    return {
        "tesla": (shared + sum(own)) / total[0],
        "mask": (shared + len(_PERCENTAGES) * own[0]) / total[0],
        "separate": sum(total) / total[0],
    }


def _measure(name, rounds, steps, threads):
    """Returns the rows of one backend, which `KERAS_BACKEND` names."""
    import keras

    import keras_tesla as kt

    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        torch.set_num_threads(threads)
    jit = name in ("tensorflow_xla", "jax")  # torch runs eagerly unless told otherwise
    random = np.random.default_rng(0)
    x = random.normal(size=(_BATCH, _NETWORK[0])).astype("float32")
    y = random.integers(_NETWORK[-1], size=_BATCH).astype("int32")

    def stepper(model, outputs=()):
        return _stepper(keras, model, x, y, jit, steps, outputs)

    tesla = _tesla(keras, kt)
    mac_ratios = _mac_ratios(keras, tesla)
    separate = [stepper(tesla.at(p)) for p in _PERCENTAGES]
    runs = {
        "plain": stepper(_plain(keras)),
        "tesla": stepper(tesla),
        "mask": stepper(_masked(keras, kt), [f"p{p}" for p in _PERCENTAGES]),
        "separate": lambda: [run() for run in separate],
    }
    seconds = timing.interleaved(runs, rounds)
    milliseconds = {k: round(1000 * float(np.median(v)) / steps, 3) for k, v in seconds.items()}
    return [
        {
            "backend": backend,
            "jit": jit,
            "network": "-".join(map(str, _NETWORK)),
            "percentages": list(_PERCENTAGES),
            "method": method,
            "ratio_to_plain_step": round(timing.median_ratio(seconds[method], seconds["plain"]), 3),
            "mac_ratio": round(mac_ratio, 3),
            "step_ms": milliseconds[method],
            "plain_step_ms": milliseconds["plain"],
        }
        for method, mac_ratio in mac_ratios.items()
    ]


def _measure_in_child(name):
    environment = {
        **os.environ,
        **timing.thread_environment(_THREADS.value),
        "KERAS_BACKEND": name.removesuffix("_xla"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",  # the numbers are those of the CPU
        "JAX_PLATFORMS": "cpu",
    }
    own = {"child": name, "rounds": _ROUNDS.value, "steps": _STEPS.value, "threads": _THREADS.value}
    command = [sys.executable, __file__, *(f"--{k}={v}" for k, v in own.items())]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _write(path: pathlib.Path, content):
    """Writes JSON whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    unfinished.replace(path)


def main(_):
    if _CHILD.value:
        rows = _measure(_CHILD.value, _ROUNDS.value, _STEPS.value, _THREADS.value)
        print(json.dumps(rows))
        return
    if not _OUTPUT.value:
        raise app.UsageError("--output is missing: the JSON file to write.")
    header = ("backend", "jit", "method", "ratio_to_plain_step", "mac_ratio", "step_ms")
    print("{:<12}{:<7}{:<10}{:>20}{:>11}{:>10}".format(*header))
    rows = []
    for name in _RUN.value:
        for row in _measure_in_child(name):
            rows.append(row)
            values = [row[key] for key in header]
            print("{:<12}{!s:<7}{:<10}{:>20.2f}{:>11.2f}{:>10.2f}".format(*values), flush=True)
    _write(pathlib.Path(_OUTPUT.value), {"rows": rows, "machine": timing.machine(_THREADS.value)})


if __name__ == "__main__":
    app.run(main)
