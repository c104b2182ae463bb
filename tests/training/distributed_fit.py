"""Trains on several devices or processes and reports how far that is from one device.

    python distributed_fit.py mirrored report.json
    python distributed_fit.py devices report.json
    python distributed_fit.py processes report.json
    python distributed_fit.py resumed report.json backup_folder [epoch]

`mirrored` needs KERAS_BACKEND=tensorflow, the others need jax; the last two run once in every
process of KERAS_DISTRIBUTION_JOB_ADDRESSES. The report is {case: {name: number}}. With an epoch
`resumed` is killed in the middle of it, in the process with the highest id.
"""

import contextlib
import json
import os
import shutil
import signal
import sys

import keras
import numpy as np
import tensorflow as tf

import keras_tesla as kt

PERCENTAGES = [100, 50]
STEPS, BATCH_SIZE = 20, 16


def mlp():
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, activation="relu", kernel_regularizer="l2", name="first"),
            kt.layers.IDPDense(16, activation="relu", name="middle"),
            kt.layers.IDPDense(3, name="last"),
        ]
    )


def cnn():
    # With tf.distribute a replica sees its part of a batch only, and without `synchronized`
    # normalizes by that; in keras.distribution the option has no meaning.
    synchronized = keras.backend.backend() == "tensorflow"
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(8, 3, name="first"),
            kt.layers.IDPConv2D(8, 3, name="middle"),
            kt.layers.IDPBatchNormalization(PERCENTAGES, synchronized=synchronized),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            kt.layers.IDPDense(3, input_channels=8, name="last"),
        ]
    )


def batches(shape, steps):
    """The same batches in the same order in every epoch and every process."""
    x = np.random.default_rng(0).standard_normal((steps * BATCH_SIZE, *shape), "float32")
    y = x.reshape(len(x), -1)[:, :3].argmax(-1)
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH_SIZE)


def within(distribution):
    """The context in which a model is made."""
    if keras.backend.backend() == "jax":
        keras.distribution.set_distribution(distribution)
        return contextlib.nullcontext()
    return distribution.scope() if distribution else contextlib.nullcontext()


def made(build, distribution):
    keras.utils.set_random_seed(0)
    with within(distribution):
        tesla = kt.TESLA(build(), PERCENTAGES)
        tesla.compile(
            keras.optimizers.SGD(0.1, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=keras.backend.backend() == "jax",  # for twenty steps XLA does not pay
        )
    return tesla


def weights(tesla):
    return [whole(v) for v in tesla.weights]


def whole(variable):
    if keras.backend.backend() == "jax" and not variable.value.is_fully_replicated:
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(variable.value, tiled=True))
    return keras.ops.convert_to_numpy(variable)


def jointly(build, distribution):
    """Twenty steps at all percentages; also what `evaluate` says, an untrained one included."""
    tesla = made(build, distribution)
    shape = tesla.network.input_shape[1:]
    before = weights(tesla)
    tesla.fit(batches(shape, STEPS), shuffle=False, verbose=0)
    after = weights(tesla)
    more = [100, 75, 50] if build is mlp else PERCENTAGES  # 75 % has no statistics
    logs = tesla.evaluate(batches(shape, 4), percentages=more, verbose=0, return_dict=True)
    return before, after, logs


def by_task(distribution, callbacks=()):
    """Two tasks of two epochs: a first epoch is always the best, no other improves by 100."""
    tesla = made(mlp, distribution)
    before = weights(tesla)
    tasks = kt.callbacks.TaskWiseEarlyStopping("val_p{percentage}_loss", min_delta=100)
    history = tesla.fit(
        batches((8,), STEPS // 4),
        epochs=4,
        validation_data=batches((8,), 4),
        shuffle=False,
        callbacks=[tasks, *callbacks],
        verbose=0,
    ).history
    return before, weights(tesla), {name: values[-1] for name, values in history.items()}


def largest_difference(ours, theirs):
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))


def compared(one, other):
    before, after, logs = one
    other_before, other_after, other_logs = other
    names = sorted(logs)
    assert names == sorted(other_logs)
    return {
        "start": largest_difference(before, other_before),
        "trained": largest_difference(before, after),
        "weights": largest_difference(after, other_after),
        "logs": largest_difference([logs[n] for n in names], [other_logs[n] for n in names]),
    }


def mirrored():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    return {
        "mlp": compared(jointly(mlp, None), jointly(mlp, strategy)),
        "cnn": compared(jointly(cnn, None), jointly(cnn, strategy)),
        "tasks": compared(by_task(None), by_task(strategy)),
    }


def model_parallel():
    """The outputs of two layers shared out over both devices; each sees the whole batch."""
    mesh = keras.distribution.DeviceMesh((1, 2), ["batch", "model"])
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*(first|middle)/kernel"] = (None, "model")
    layout[".*(first|middle)/bias"] = ("model",)
    return keras.distribution.ModelParallel(layout_map=layout)


def devices():
    assert len(keras.distribution.list_devices()) == 2
    data_parallel = keras.distribution.DataParallel()
    one_mlp = jointly(mlp, None)
    return {
        "data_parallel mlp": compared(one_mlp, jointly(mlp, data_parallel)),
        "data_parallel cnn": compared(jointly(cnn, None), jointly(cnn, data_parallel)),
        "model_parallel mlp": compared(one_mlp, jointly(mlp, model_parallel())),
    }


def processes():
    keras.distribution.initialize()
    assert len(keras.distribution.list_devices()) == 2
    one = jointly(mlp, None)
    return {
        "data_parallel mlp": compared(one, jointly(mlp, keras.distribution.DataParallel())),
        "model_parallel mlp": compared(one, jointly(mlp, model_parallel())),
    }


class Watch(keras.callbacks.Callback):
    """Counts epochs; kills its process in the middle of one."""

    def __init__(self, killed_in=None):
        super().__init__()
        self.killed_in = killed_in
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append(epoch)

    def on_train_batch_end(self, batch, logs=None):
        if self.epochs[-1] == self.killed_in and batch == 2:
            float(logs["loss"])  # all processes have come this far
            os.kill(os.getpid(), signal.SIGKILL)


def own_backup(folder, rank):
    """Each process must save, or Keras makes variables in one alone; all read the first's."""
    first, own = f"{folder}/0", f"{folder}/{rank}"
    if rank:
        shutil.rmtree(own, ignore_errors=True)
        if os.path.exists(first):
            shutil.copytree(first, own)
    return kt.callbacks.BackupAndRestore(own)


def resumed(folder, killed_in=None):
    rank = int(os.environ["KERAS_DISTRIBUTION_PROCESS_ID"])
    backup = own_backup(folder, rank)
    keras.distribution.initialize()
    distribution = keras.distribution.DataParallel()
    watch = Watch(int(killed_in) if killed_in and rank == distribution.num_processes - 1 else None)
    found = by_task(distribution, [backup, watch])
    whole_run = by_task(None)
    return {"tasks": {**compared(whole_run, found), "first_epoch": watch.epochs[0]}}


def main(setup, report, *arguments):
    setups = {f.__name__: f for f in (mirrored, devices, processes, resumed)}
    results = setups[setup](*arguments)
    with open(report, "w") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
