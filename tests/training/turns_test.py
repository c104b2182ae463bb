"""One percentage after the other gives the step that all of them together give."""

import keras
import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense
from keras_tesla.training.distillation import InPlaceDistillation

PERCENTAGES = [100, 60, 30]
BACKEND = keras.backend.backend()
by_turns = pytest.mark.skipif(BACKEND == "jax", reason="JAX has Keras' own step")


def network(regularizer=None, activity=None):
    """Two shared tensors are read at every percentage, one of them by two layers."""
    inputs = keras.Input((8, 8, 3))
    first = keras.layers.Conv2D(10, 3, kernel_regularizer=regularizer)(inputs)
    shared = keras.layers.ReLU()(first)
    x = IDPConv2D(10, 3, padding="same", activity_regularizer=activity)(shared)
    x = IDPBatchNormalization(PERCENTAGES)(x)
    x = keras.layers.ReLU()(x + first)
    y = IDPConv2D(4, 3, padding="same", kernel_regularizer=regularizer)(shared)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Concatenate()([x, y]))
    return keras.Model(inputs, IDPDense(5)(x))


def compiled(model, aggregation="sum", distillation=None, **kwargs):
    tesla = kt.TESLA(model, PERCENTAGES, aggregation, distillation)
    tesla.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
        **kwargs,
    )
    return tesla


def trained(monkeypatch, turns, weights=None, **kwargs):
    """Returns (logs, weights) after a short training."""
    keras.utils.set_random_seed(3)
    tesla = compiled(network(keras.regularizers.L2(0.01)), **kwargs)
    if not turns:
        monkeypatch.setattr(kt.TESLA, "takes_turns", False)
    assert tesla.takes_turns is turns
    random = np.random.default_rng(0)
    x, y = random.normal(size=(24, 8, 8, 3)), random.integers(5, size=24)
    history = tesla.fit(
        x, y, batch_size=8, epochs=2, shuffle=False, sample_weight=weights, verbose=0
    )
    monkeypatch.undo()
    return history.history, tesla.get_weights()


@by_turns
@pytest.mark.parametrize(
    ("aggregation", "distillation"),
    [
        ("sum", None),
        ("exponential", None),
        ({100: 0.5, 60: 0.2, 30: 3.0}, None),
        ("sum", InPlaceDistillation(0.5, temperature=2)),
    ],
)
@pytest.mark.parametrize("weights", [None, np.linspace(0, 2, 24)])
def test_the_weights_are_those_of_one_gradient(monkeypatch, aggregation, distillation, weights):
    arguments = {"aggregation": aggregation, "distillation": distillation, "weights": weights}
    logs, actual = trained(monkeypatch, True, **arguments)
    expected_logs, expected = trained(monkeypatch, False, **arguments)
    assert logs.keys() == expected_logs.keys()
    # Six steps whose float32 sums are made in another order.
    for name, values in expected_logs.items():
        np.testing.assert_allclose(logs[name], values, rtol=1e-4, atol=1e-5)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@by_turns
def test_an_embedding_in_the_shared_part_is_trained(monkeypatch):
    """On TensorFlow its gradient is sparse."""

    def run(turns):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,), dtype="int32")
        x = keras.layers.Flatten()(keras.layers.Embedding(12, 4)(inputs))
        x = keras.layers.Dense(10, activation="relu")(x)
        tesla = compiled(keras.Model(inputs, IDPDense(5)(x)))
        if not turns:
            monkeypatch.setattr(kt.TESLA, "takes_turns", False)
        x = np.random.default_rng(0).integers(12, size=(16, 6))
        tesla.fit(x, x[:, 0] % 5, epochs=2, shuffle=False, verbose=0)
        monkeypatch.undo()
        return tesla.get_weights()

    for a, b in zip(run(True), run(False), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@by_turns
def test_a_task_alone_has_no_turns():
    tesla = compiled(network())
    assert tesla.takes_turns
    tesla.activate([60])
    assert not tesla.takes_turns


class _Own(keras.layers.Layer):
    def call(self, x):
        self.add_loss(keras.ops.sum(x**2))
        return x


class _OwnLoss(kt.TESLA):
    def compute_loss(self, *args, **kwargs):
        return 2 * super().compute_loss(*args, **kwargs)


@by_turns
def test_losses_that_need_all_percentages_are_differentiated_together():
    def largest(losses):
        return keras.ops.max(keras.ops.stack(list(losses.values())))

    assert not compiled(network(), aggregation=largest).takes_turns
    assert not compiled(network(activity="l2")).takes_turns
    inputs = keras.Input((4,))
    own = keras.Model(inputs, IDPDense(5)(_Own()(keras.layers.Dense(8)(inputs))))
    assert not compiled(own).takes_turns
    subclass = _OwnLoss(network(), PERCENTAGES)
    subclass.compile("sgd", "mse", jit_compile=False)
    assert not subclass.takes_turns


@pytest.mark.tensorflow
def test_a_step_that_xla_compiles_has_no_turns():
    tesla = kt.TESLA(network(), PERCENTAGES)
    tesla.compile("sgd", "mse", jit_compile=True)
    assert not tesla.takes_turns
