"""How the commands are run in a test: in this process, because every start imports TensorFlow."""

import keras
import pytest

from keras_tesla_cli.main import main


@pytest.fixture
def run(capsys):
    """A function `(*arguments, wrong=False)` that runs the command and returns what it says."""

    def call(*arguments, wrong=False):
        if not wrong:
            main([str(a) for a in arguments])
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        assert isinstance(ended.value.code, str)  # Python prints it and ends with 1
        return ended.value.code

    return call


@pytest.fixture
def make():
    """A function `(last="linear", units=3, activation="relu")` that returns a plain network."""

    def network(last="linear", units=3, activation="relu"):
        keras.utils.set_random_seed(1)
        layers = [
            keras.Input((6,), name="x"),
            keras.layers.Dense(20, activation=activation, name="first"),
            keras.layers.Dense(20, activation="relu", name="second"),
            keras.layers.Dense(units, activation=last, name="logits"),
        ]
        return keras.Sequential(layers, name="mine")

    return network
