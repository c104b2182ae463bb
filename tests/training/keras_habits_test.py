"""What users are used to from `keras.Model` holds for `TESLA`; the oracle is plain Keras.

At 100 % alone a TESLA model trains as the network does, so its `p100_` columns are Keras' own.
"""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.layers import IDPDense

X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
Y = np.arange(40) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu"),
            IDPDense(8, activation="relu"),
            IDPDense(3),
        ]
    )


def two_heads(structure):
    """A network with the outputs "a" and "b" in a dict or a list."""
    keras.utils.set_random_seed(0)
    x = keras.Input((6,))
    y = IDPDense(8, activation="relu")(layers.Dense(8, activation="relu")(x))
    outputs = {"a": IDPDense(3, name="a")(y), "b": IDPDense(1, name="b")(y)}
    return keras.Model(x, outputs if structure == "dict" else list(outputs.values()))


class WithoutConfig(keras.metrics.Metric):
    """A metric as people write them: an argument that no config knows of."""

    def __init__(self, factor):
        super().__init__(name="scaled")
        self.factor = factor
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(self.factor * keras.ops.mean(keras.ops.abs(y_pred)))

    def result(self):
        return self.total + 0.0  # a variable is no result on JAX


class PartOfAConfig(WithoutConfig):
    """Its config lacks the argument, and the default is another value."""

    def __init__(self, factor=1.0, name="scaled", dtype=None):
        super().__init__(factor)


class Wrapper(keras.metrics.Metric):
    """A metric around another one."""

    def __init__(self, inner):
        super().__init__(name="wrapped")
        self.inner = inner

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.inner.update_state(y_true, y_pred)

    def result(self):
        return self.inner.result()

    def reset_state(self):
        self.inner.reset_state()


METRICS = {
    "without config": lambda: WithoutConfig(3.0),
    "part of a config": lambda: PartOfAConfig(3.0),
    "wrapper": lambda: Wrapper(WithoutConfig(3.0)),
    "function": lambda: keras.metrics.MeanMetricWrapper(
        lambda y, p: keras.ops.abs(p[:, 0]), name="fn"
    ),
}


@pytest.mark.parametrize("kind", METRICS)
def test_a_users_metric_counts_at_every_percentage_as_in_keras(kind):
    tesla = kt.TESLA(network(), [100, 50])
    tesla.compile("sgd", LOSS, metrics=[METRICS[kind]()])
    logs = tesla.evaluate(X, Y, batch_size=16, verbose=0, return_dict=True)
    for percentage in (100, 50):
        plain, metric = tesla.at(percentage), METRICS[kind]()
        plain.compile("sgd", LOSS, metrics=[metric])
        expected = plain.evaluate(X, Y, batch_size=16, verbose=0, return_dict=True)[metric.name]
        assert logs[f"p{percentage}_{metric.name}"] == pytest.approx(expected, rel=1e-5)


def test_a_metric_object_holds_the_result_of_the_highest_percentage():
    metric = keras.metrics.SparseCategoricalAccuracy("accuracy")
    tesla = kt.TESLA(network(), [100, 50])
    tesla.compile("sgd", LOSS, metrics=[metric])
    logs = tesla.evaluate(X, Y, verbose=0, return_dict=True)
    assert float(metric.result()) == pytest.approx(logs["p100_accuracy"], rel=1e-6)
    assert logs["p100_accuracy"] > 0


LOSSES = {
    "dict": {"a": LOSS, "b": "mse"},
    "list": [LOSS, "mse"],
    "list, named": {"a": LOSS, "b": "mse"},
}


@pytest.mark.parametrize("given", LOSSES)
def test_columns_of_several_outputs_are_those_of_keras(given):
    """Each in front a percentage's name, and none that is always zero."""
    targets = {"a": Y, "b": X[:, :1]} if given == "dict" else [Y, X[:, :1]]
    metrics = {"a": ["accuracy"]}

    def logs_of(model):
        model.compile(keras.optimizers.SGD(0.1), LOSSES[given], metrics=metrics)
        history = model.fit(
            X, targets, validation_data=(X, targets), epochs=2, verbose=0, shuffle=False
        )
        return {name: values[-1] for name, values in history.history.items()}

    structure = given.split(",")[0]
    tesla = logs_of(kt.TESLA(two_heads(structure), [100]))
    plain = logs_of(two_heads(structure))
    expected = {}
    for name, value in plain.items():
        prefix = "val_" if name.startswith("val_") else ""
        expected[f"{prefix}p100_{name.removeprefix('val_')}"] = value
        if name.endswith("loss") and name.removeprefix("val_") == "loss":
            expected[name] = value
    assert tesla == pytest.approx(expected, rel=1e-5)


# What a model's own class does.


def own_class(method, base=keras.Model):
    """A class of a user with a method of its own, which does what Keras' does."""

    def own(self, *args, **kwargs):
        return getattr(base, method)(self, *args, **kwargs)

    return type("Physics", (base,), {method: own})


COPIES = {
    "TESLA": lambda model: kt.TESLA(model, [100, 50]),
    "to_idp": lambda model: kt.to_idp(model, [100, 50]),
    "order_channels": kt.order_channels,
    "quantization_aware": lambda model: kt.quantization_aware(model, [100, 50]),
}


def mixed():
    """A network that is still to be converted in part."""
    return keras.Sequential([keras.Input((6,)), layers.Dense(8), IDPDense(8), layers.Dense(3)])


STEPS = ["compute_loss", "compute_metrics", "train_step", "test_step", "predict_step"]


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("method", STEPS)
def test_a_class_with_its_own_step_is_refused(copy, method):
    plain = mixed()
    message = rf"of the class Physics, whose own {method} would be dropped.*`compile`.*TESLA"
    for model in (
        own_class(method)(plain.inputs, plain.outputs),
        own_class(method, keras.Sequential)([keras.Input((6,)), *plain.layers]),
    ):
        with pytest.raises(ValueError, match=message):
            COPIES[copy](model)
    COPIES[copy](keras.Model(plain.inputs, plain.outputs))  # the way out


@pytest.mark.parametrize("copy", COPIES)
def test_a_class_with_its_own_call_is_refused(copy):
    plain = mixed()
    model = own_class("call")(plain.inputs, plain.outputs)
    with pytest.raises(ValueError, match="must be a Functional or Sequential one"):
        COPIES[copy](model)


def test_a_class_that_only_adds_methods_is_taken():
    class Named(keras.Model):
        def describe(self):
            return "mine"

    plain = mixed()
    kt.TESLA(Named(plain.inputs, plain.outputs), [100, 50])


# Predictions.


def test_the_second_argument_of_predict_is_the_batch_size():
    tesla = kt.TESLA(network(), [100, 50])

    class Batches(keras.callbacks.Callback):
        count = 0

        def on_predict_batch_end(self, batch, logs=None):
            self.count += 1

    batches = Batches()
    outputs = tesla.predict(X, 10, 0, callbacks=[batches])
    assert batches.count == 4
    np.testing.assert_allclose(outputs, tesla.network.predict(X, 10, 0), rtol=1e-5)
    np.testing.assert_allclose(
        tesla.predict(X, 10, 0, percentage=50), tesla.at(50).predict(X, verbose=0), rtol=1e-5
    )
