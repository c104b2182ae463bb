"""What training prints: columns of two percentages in the bar, a table of all after each epoch."""

import keras
import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla.layers import IDPDense

X = np.ones((8, 4), "float32")
Y = np.zeros(8)


def compiled(percentages=(100, 50, 9)):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(11), IDPDense(2)])
    tesla = kt.TESLA(model, percentages)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    tesla.compile("sgd", loss, metrics=["accuracy"])
    return tesla


@pytest.mark.slow
def test_the_bar_has_the_widest_and_the_narrowest_and_the_table_all(capsys):
    history = compiled().fit(X, Y, epochs=2, validation_data=(X, Y), verbose=1).history
    *_, last = capsys.readouterr().out.split("Epoch 2/2")
    *bars, head, first, second, third = last.strip().splitlines()
    bar, table = bars[-1], [head, first, second, third]
    assert "p100_accuracy" in bar
    assert "p9_accuracy" in bar
    assert "p50" not in bar
    assert table[0].split() == ["accuracy", "loss", "val_accuracy", "val_loss"]
    for line, percentage in zip(table[1:], (100, 50, 9), strict=True):
        number, unit, *cells = line.split()
        assert (number, unit) == (str(percentage), "%")
        names = [
            f"{validation}p{percentage}_{name}"
            for validation in ("", "val_")
            for name in ("accuracy", "loss")
        ]
        assert cells == [f"{history[name][-1]:.4f}" for name in names]


def test_a_line_for_each_epoch_and_one_table_at_the_end(capsys):
    compiled().fit(X, Y, epochs=2, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert sum("p9_loss" in line for line in lines) == 2
    assert [line.split()[0] for line in lines[-4:]] == ["accuracy", "100", "50", "9"]


def test_evaluate_prints_the_table_once(capsys):
    compiled().evaluate(X, Y)
    assert capsys.readouterr().out.count("50 %") == 1


def test_two_percentages_need_no_table(capsys):
    compiled((100, 50)).fit(X, Y, verbose=1)
    printed = capsys.readouterr().out
    assert "p50_loss" in printed
    assert "50 %" not in printed


def test_all_columns_and_nothing(capsys):
    compiled().fit(X, Y, verbose="all")
    printed = capsys.readouterr().out
    assert "p50_loss" in printed
    assert "50 %" not in printed
    compiled().fit(X, Y, verbose=0)
    assert not capsys.readouterr().out


def test_messages_of_callbacks_begin_on_a_new_line(capsys):
    line = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: print("of a callback"))
    compiled().fit(X, Y, callbacks=[line])
    assert "\nof a callback\n" in capsys.readouterr().out


@pytest.mark.parametrize("callbacks", [None, [], keras.callbacks.TerminateOnNaN()])
@pytest.mark.slow
def test_callbacks_in_every_form_keras_takes(callbacks, capsys):
    compiled().fit(X, Y, 4, 1, "auto", callbacks)
    assert capsys.readouterr().out.count("50 %") == 1


def test_a_metric_of_several_numbers_is_shown_by_its_mean(capsys):
    tesla = compiled()
    tesla.compile(
        "sgd",
        keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.F1Score(name="f1")],
    )
    y = np.eye(2)[Y.astype(int)]
    logs = tesla.evaluate(X, y, verbose=2, return_dict=True)
    row = capsys.readouterr().out.splitlines()[-2].split()
    assert logs["p50_f1"].shape == (2,)
    assert row[:3] == ["50", "%", f"{np.mean(logs['p50_f1']):.4f}"]


def test_arguments_are_bound_as_in_keras():
    tesla = compiled()
    logs = tesla.evaluate(X, Y, 4, 0, None, None, None, True, [50])
    assert set(logs) == {"loss", "p50_loss", "p50_accuracy"}
    with pytest.raises(TypeError, match="multiple values"):
        tesla.fit(X, Y, y=Y)
    with pytest.raises(TypeError, match="too many"):
        tesla.fit(*[None] * 30)


def test_the_learning_rate_is_in_the_bar_of_its_scheduler(capsys):
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.125)
    compiled().fit(X, Y, callbacks=[schedule], verbose=2)
    assert "learning_rate: 0.1250" in capsys.readouterr().out


def test_a_bar_of_the_users_own_stays(capsys):
    bar = keras.callbacks.ProgbarLogger()
    compiled().fit(X, Y, callbacks=[bar])
    assert "p50_loss" in capsys.readouterr().out
