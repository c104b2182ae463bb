"""TaskWiseEarlyStopping: when tasks end, what they pass on, and continuing after a kill."""

from contextlib import nullcontext

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.layers import IDPBatchNormalization, IDPDense
from tests.helpers import JIT, LOSS, examples


def compiled(percentages=(100, 50, 20), optimizer="adam"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(10, activation="relu"),
            IDPDense(10, activation="relu"),
            IDPBatchNormalization(percentages),
            IDPDense(3),
        ]
    )
    tesla = kt.TESLA(model, percentages)
    tesla.compile(optimizer, LOSS, metrics=["accuracy"], jit_compile=JIT)
    return tesla


class Scripted(keras.callbacks.Callback):
    """Replaces the monitored values by given ones and notes which percentages trained."""

    def __init__(self, monitor, values):
        super().__init__()
        self.monitor = monitor
        self.values = values
        self.active = []

    def on_epoch_end(self, epoch, logs=None):
        self.active.append(self.model.active_percentages)
        logs[self.monitor.replace("{percentage}", str(self.active[-1][-1]))] = self.values[epoch]


def run(tesla, stopping, values, epochs=None, callbacks=()):
    script = Scripted(stopping.monitor, values)
    tesla.fit(
        *examples(),
        epochs=epochs or len(values),
        verbose=0,
        callbacks=[script, stopping, *callbacks],
    )
    return script.active


@pytest.mark.backend_free
@pytest.mark.slow
def test_each_task_goes_on_until_its_value_stops_improving():
    tesla = compiled()
    stopping = kt.callbacks.TaskWiseEarlyStopping("val_p{percentage}_accuracy", patience=2)
    values = [0.5, 0.6, 0.6, 0.5, 0.2, 0.1, 0.1, 0.3, 0.3, 0.3, 9.9]
    #         100: best .6, 2 without  | 50: best .2   | 20: best .3, 2 without; epoch 11 is not run
    active = run(tesla, stopping, values)
    assert active == [(100,)] * 4 + [(100, 50)] * 3 + [(100, 50, 20)] * 3
    assert tesla.active_percentages == (100, 50, 20)
    assert tesla.callback_state == {}


@pytest.mark.backend_free
def test_a_loss_is_to_fall_and_min_delta_counts():
    tesla = compiled(percentages=(100, 50))
    stopping = kt.callbacks.TaskWiseEarlyStopping("val_loss", min_delta=0.1, patience=1)
    active = run(tesla, stopping, [1.0, 0.8, 0.75, 3.0, 2.5, 2.45])
    assert active == [(100,)] * 3 + [(100, 50)] * 3


@pytest.mark.slow
@pytest.mark.backend_free
def test_the_last_task_may_have_more_patience():
    tesla = compiled(percentages=(100, 50))
    stopping = kt.callbacks.TaskWiseEarlyStopping("val_loss", patience=1, last_patience=3)
    active = run(tesla, stopping, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert active == [(100,)] * 2 + [(100, 50)] * 4


class Weights(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.ends = []
        self.begins = []

    def on_epoch_begin(self, epoch, logs=None):
        self.begins.append(self.model.get_weights())

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(self.model.get_weights())


@pytest.mark.parametrize("restore", [True, False])
@pytest.mark.slow
def test_a_task_hands_on_its_best_weights(restore):
    tesla = compiled(percentages=(100, 50))
    stopping = kt.callbacks.TaskWiseEarlyStopping(
        "val_loss", patience=2, restore_best_weights=restore
    )
    weights = Weights()
    script = Scripted("val_loss", [1.0, 0.5, 0.7, 0.7, 1.0])
    # `weights` comes first, so that it sees the weights before the task's end restores others.
    tesla.fit(*examples(), epochs=5, verbose=0, callbacks=[script, weights, stopping])
    assert script.active == [(100,)] * 4 + [(100, 50)]
    handed_on = weights.ends[1 if restore else 3]
    for ours, theirs in zip(weights.begins[4], handed_on, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.slow
def test_a_task_starts_with_fresh_optimizer_slots(reset):
    tesla = compiled(percentages=(100, 50), optimizer=keras.optimizers.Adam(0.01))
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            optimizer = self.model.optimizer
            values = [keras.ops.convert_to_numpy(v) for v in optimizer.variables]
            slots = [v for v in values if v.shape == (10, 10)]
            rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
            seen.append((int(optimizer.iterations), sum(np.abs(s).sum() for s in slots), rate))

    stopping = kt.callbacks.TaskWiseEarlyStopping("val_loss", patience=1, reset_optimizer=reset)
    run(tesla, stopping, [1.0, 1.0, 1.0], callbacks=[Look()])
    iterations, slots, rate = seen[2]  # the first epoch of the second task
    assert (iterations == 0, slots == 0) == (reset, reset)
    assert rate == pytest.approx(0.01)


@pytest.mark.backend_free
def test_it_ends_with_the_epochs_and_says_what_was_not_trained():
    tesla = compiled()
    stopping = kt.callbacks.TaskWiseEarlyStopping("val_loss", patience=1)
    with pytest.warns(UserWarning, match=r"before the tasks of \[20\] %"):
        run(tesla, stopping, [1.0, 1.0, 1.0])
    with pytest.warns(UserWarning, match=r"before the tasks of \[50, 20\] %"):
        run(tesla, stopping, [1.0, 1.0])  # the second task has begun, but no epoch is left for it
    assert tesla.active_percentages == (100, 50, 20)


@pytest.mark.slow
@pytest.mark.backend_free
def test_another_callback_may_end_training():
    tesla = compiled()

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    stopping = kt.callbacks.TaskWiseEarlyStopping("val_loss", patience=5)
    script = Scripted("val_loss", [1.0] * 9)
    with pytest.warns(UserWarning, match="before the tasks"):
        tesla.fit(*examples(), epochs=9, verbose=0, callbacks=[script, Stop(), stopping])
    assert len(script.active) == 2


@pytest.mark.slow
def test_a_killed_run_goes_on_in_the_middle_of_a_task(tmp_path):
    """Weights, tasks and epochs are those of a run that was not killed."""
    values = [0.5, 0.6, 0.6, 0.5, 0.2, 0.4, 0.1, 0.3, 0.3, 0.3, 0.3]
    monitor = "val_p{percentage}_accuracy"

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 6:  # in the task of 50 %, after its best epoch and one without improvement
                raise KeyboardInterrupt

    def train(directory, *others):
        tesla = compiled()
        script = Scripted(monitor, values)
        callbacks = [
            script,
            kt.callbacks.TaskWiseEarlyStopping(monitor, patience=2),
            kt.callbacks.BackupAndRestore(directory),
            *others,
        ]
        x, y = examples()
        try:
            tesla.fit(x, y, epochs=11, shuffle=False, verbose=0, callbacks=callbacks)
        except KeyboardInterrupt:
            assert others
        return tesla, script.active

    whole, all_active = train(tmp_path / "whole")
    _, before = train(tmp_path / "killed", Kill())
    resumed, after = train(tmp_path / "killed")
    assert before + after == all_active
    assert len(before) == 6
    for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Poison(keras.callbacks.Callback):
    """Makes the weights NaN when an epoch begins, and notes those of every epoch before."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch
        self.begins = []

    def on_epoch_begin(self, epoch, logs=None):
        self.begins.append(self.model.get_weights())
        if epoch == self.epoch:
            self.model.set_weights([np.full_like(w, np.nan) for w in self.begins[-1]])


@pytest.mark.parametrize(
    ("at", "restore", "left"),
    [
        (2, True, 1),  # in the task of 100 %, whose best epoch was the first
        (3, True, 1),  # the first epoch of the task of 50 %: the best weights of the last task
        (3, False, 3),  # the last weights of the last task, which this one began with
        (5, True, 5),  # in the task of 50 %, whose best epoch was the one before
        (5, False, 3),  # without best weights, what the task began with
        (0, True, 0),  # the first epoch of all: the weights that training began with
    ],
)
@pytest.mark.slow
def test_a_loss_that_is_nan_leaves_the_last_good_weights(at, restore, left):
    tesla = compiled(percentages=(100, 50))
    stopping = kt.callbacks.TaskWiseEarlyStopping(
        "val_loss", patience=2, restore_best_weights=restore
    )
    poison = Poison(at)
    script = Scripted("val_loss", [0.5, 0.7, 0.7, 0.8, 0.2, 0.1, 0.1])
    with pytest.warns(UserWarning, match="before the tasks") if at < 4 else nullcontext():
        tesla.fit(
            *examples(),
            epochs=7,
            verbose=0,
            callbacks=[script, keras.callbacks.TerminateOnNaN(), stopping, poison],
        )
    assert len(script.active) == at + 1
    for ours, theirs in zip(tesla.get_weights(), poison.begins[left], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # Nothing that is NaN is left in the optimizer either: training may go on, with a lower rate.
    history = tesla.fit(*examples(), epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_a_run_that_was_killed_still_knows_what_its_task_began_with(tmp_path):
    """NaN in the second epoch of a task without best weights, after going on from a kill."""
    begins = []
    for at, kill in ((9, 3), (3, 9)):
        tesla = compiled(percentages=(100, 50))
        stopping = kt.callbacks.TaskWiseEarlyStopping(
            "val_loss", patience=1, restore_best_weights=False
        )

        class Kill(Poison):
            def on_epoch_begin(self, epoch, logs=None, kill=kill):
                if epoch == kill:
                    raise KeyboardInterrupt
                super().on_epoch_begin(epoch, logs)

        poison = Kill(at)
        callbacks = [
            Scripted("val_loss", [0.5, 0.7, 0.5, 0.4][-4 if kill == 3 else -1 :] + [0.4] * 5),
            keras.callbacks.TerminateOnNaN(),
            stopping,
            keras.callbacks.BackupAndRestore(str(tmp_path / "backup")),
            poison,
        ]
        try:
            tesla.fit(*examples(), epochs=5, verbose=0, shuffle=False, callbacks=callbacks)
        except KeyboardInterrupt:
            assert kill == 3
        begins += poison.begins
    for ours, theirs in zip(tesla.get_weights(), begins[2], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.backend_free
def test_the_same_callback_serves_a_second_fit():
    tesla = compiled(percentages=(100, 50))
    stopping = kt.callbacks.TaskWiseEarlyStopping("val_loss", patience=1)
    values = [1.0, 1.0, 1.0, 1.0]
    assert run(tesla, stopping, values) == run(tesla, stopping, values)


@pytest.mark.backend_free
@pytest.mark.slow
def test_a_line_for_each_task(capsys):
    stopping = kt.callbacks.TaskWiseEarlyStopping("val_loss", patience=1, verbose=1)
    run(compiled(percentages=(100, 50)), stopping, [1.0, 1.5, 0.5, 0.25, 0.25])
    lines = capsys.readouterr().out.splitlines()
    assert "Epoch 2: task 100 % ends, best val_loss 1" in lines
    assert "Epoch 5: task 50 % ends, best val_loss 0.25" in lines


def test_a_monitor_of_unknown_direction_needs_a_mode():
    with pytest.raises(ValueError, match="Pass `mode='min'` or `mode='max'`"):
        kt.callbacks.TaskWiseEarlyStopping("val_p{percentage}_score")
    kt.callbacks.TaskWiseEarlyStopping("val_p{percentage}_score", mode="max")


def test_another_model_is_refused():
    plain = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    plain.compile("sgd", LOSS)
    with pytest.raises(ValueError, match=r"keras_tesla\.TESLA model. Received: Sequential"):
        plain.fit(*examples(), verbose=0, callbacks=[kt.callbacks.TaskWiseEarlyStopping()])


@pytest.mark.slow
@pytest.mark.backend_free
def test_random_tasks_are_one_percentage_each_until_it_stops():
    tesla = compiled()
    stopping = kt.callbacks.TaskWiseEarlyStopping(
        "val_p{percentage}_accuracy", patience=1, order="random", seed=0
    )
    values = [0.5, 0.5, 0.4, 0.6, 0.6, 0.1, 0.1, 0.3, 0.3, 0.2, 0.2, 0.7]
    #         task 1   | task 2         | 3       | 4       | 5       | 6, when the epochs end
    active = run(tesla, stopping, values)
    assert all(len(percentages) == 1 for percentages in active)
    tasks = [active[i][0] for i in (0, 2, 5, 7, 9, 11)]
    assert active == [(tasks[i],) for i in (0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5)]
    assert len(set(tasks)) > 1
    assert tesla.active_percentages == (100, 50, 20)
    other = kt.callbacks.TaskWiseEarlyStopping("val_loss", patience=0, order="random", seed=1)
    again = kt.callbacks.TaskWiseEarlyStopping("val_loss", patience=0, order="random", seed=0)
    orders = [run(compiled(), stopping, [1.0] * 12) for stopping in (other, again)]
    assert orders[0] != orders[1]
    assert orders[1][0] == active[0]


@pytest.mark.slow
@pytest.mark.backend_free
def test_random_tasks_come_as_often_as_they_will_run():
    tesla = compiled()
    stopping = kt.callbacks.TaskWiseEarlyStopping(
        "val_loss", order="random", probabilities={100: 3.0, 20: 1.0}
    )
    stopping.set_model(tesla)
    drawn = stopping._tasks(2000)
    # 4 standard deviations of a share of .25 in 2000 draws are .039.
    assert drawn.count(20) / 2000 == pytest.approx(0.25, abs=0.039)
    assert drawn.count(50) == 0


@pytest.mark.backend_free
def test_untrained_random_tasks_are_named():
    stopping = kt.callbacks.TaskWiseEarlyStopping("val_loss", patience=5, order="random")
    with pytest.warns(UserWarning, match="before the tasks of"):
        run(compiled(), stopping, [1.0, 1.0])


@pytest.mark.filterwarnings("ignore:Training ended before")  # few tasks: not every percentage
@pytest.mark.slow
def test_random_tasks_go_on_after_a_kill(tmp_path):
    def train(directory, epochs):
        tesla = compiled()
        stopping = kt.callbacks.TaskWiseEarlyStopping("val_loss", patience=1, order="random")
        backup = keras.callbacks.BackupAndRestore(str(directory), delete_checkpoint=False)
        return run(tesla, stopping, [1.0] * 8, epochs=epochs, callbacks=[backup])

    whole = train(tmp_path / "whole", 8)

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 5:
                raise KeyboardInterrupt

    for others in ([Kill()], []):
        tesla = compiled()
        stopping = kt.callbacks.TaskWiseEarlyStopping("val_loss", patience=1, order="random")
        backup = keras.callbacks.BackupAndRestore(str(tmp_path / "killed"))
        script = Scripted("val_loss", [1.0] * 8)
        try:
            tesla.fit(
                *examples(), epochs=8, verbose=0, callbacks=[script, stopping, backup, *others]
            )
        except KeyboardInterrupt:
            assert others
    assert script.active == whole[5:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": "ascending"}, "`order` must be 'descending' or 'random'. Received: 'ascending'"),
        ({"probabilities": {50: 1.0}}, "`probabilities` are for `order='random'`"),
        ({"order": "random", "probabilities": {50: 0.0}}, "must be positive and finite"),
        ({"order": "random", "probabilities": {50: float("nan")}}, "must be positive and finite"),
        ({"order": "random", "probabilities": {0: 1.0}}, "from 1 to 100"),
    ],
)
def test_an_order_that_is_none(arguments, message):
    with pytest.raises(ValueError, match=message):
        kt.callbacks.TaskWiseEarlyStopping(**arguments)


def test_probabilities_are_of_trained_percentages():
    stopping = kt.callbacks.TaskWiseEarlyStopping(order="random", probabilities={33: 1.0})
    with pytest.raises(ValueError, match=r"probabilities of \[33\] in addition"):
        run(compiled(), stopping, [1.0])


@pytest.mark.parametrize(
    ("monitor", "validates", "message"),
    [
        ("val_loss", False, r"no column 'val_loss': `fit` got no validation data.*'p100_loss'"),
        ("p{percentage}_acc", True, r"no column 'p100_acc'\. .*'p100_loss'.*monitor='p\{perc"),
        ("val_p{percentage}_acc", True, r"no column 'val_p100_acc'. They have .*'val_p100_loss'"),
    ],
)
@pytest.mark.slow
def test_a_monitor_that_is_not_in_the_logs(monitor, validates, message):
    tesla = compiled()
    x, y = examples()
    epochs = []

    class Count(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            epochs.append(epoch)

    stopping = kt.callbacks.TaskWiseEarlyStopping(monitor, patience=3)
    data = (x, y) if validates else None
    with pytest.raises(ValueError, match=message):
        tesla.fit(x, y, 20, 4, 0, [stopping, Count()], validation_data=data)
    assert epochs == [0]


@pytest.mark.filterwarnings("ignore:Early stopping conditioned", "ignore:Training ended before")
@pytest.mark.parametrize("frequency", [2, [2, 4]])
def test_epochs_without_validation_may_lack_the_column(frequency):
    tesla = compiled()
    data = examples()
    stopping = kt.callbacks.TaskWiseEarlyStopping(patience=5)
    arguments = {"validation_data": data, "validation_freq": frequency}
    history = tesla.fit(*data, epochs=4, verbose=0, callbacks=[stopping], **arguments)
    assert len(history.history["val_loss"]) == 2
