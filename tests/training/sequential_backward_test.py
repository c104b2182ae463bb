"""One percentage after the other gives the step that all of them together give."""

import functools

import keras
import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense
from keras_tesla.training.aggregation import Sum
from keras_tesla.training.distillation import InPlaceDistillation
from tests.helpers import nightly_after

PERCENTAGES = [100, 60, 30]
BACKEND = keras.backend.backend()
not_on_jax = pytest.mark.skipif(BACKEND == "jax", reason="JAX has Keras' own step")


def network(regularizer=None, activity=None):
    """Two shared tensors are read at every percentage, one of them by two layers."""
    inputs = keras.Input((8, 8, 3))
    first = keras.layers.Conv2D(10, 3, kernel_regularizer=regularizer)(inputs)
    shared = keras.layers.Dropout(0.0)(keras.layers.ReLU()(first))  # returns its input itself
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


def trained(monkeypatch, sequential, weights=None, make=None, batch_size=8, **kwargs):
    """Returns (logs, weights) after a short training."""
    keras.utils.set_random_seed(3)
    tesla = compiled(make() if make else network(keras.regularizers.L2(0.01)), **kwargs)
    if not sequential:
        monkeypatch.setattr(kt.TESLA, "backward_is_sequential", False)
    assert tesla.backward_is_sequential is sequential
    random = np.random.default_rng(0)
    x, y = random.normal(size=(24, 8, 8, 3)), random.integers(5, size=24)
    history = tesla.fit(
        x, y, batch_size=batch_size, epochs=2, shuffle=False, sample_weight=weights, verbose=0
    )
    monkeypatch.undo()
    return history.history, tesla.get_weights()


@not_on_jax
@pytest.mark.parametrize(
    ("aggregation", "distillation"),
    [
        ("sum", None),
        ("exponential", None),
        ({100: 0.5, 60: 0.2, 30: 3.0}, None),
        ("sum", InPlaceDistillation(0.5, temperature=2)),
    ],
)
@pytest.mark.parametrize("weights", nightly_after(1, [np.linspace(0, 2, 24), None]))
@pytest.mark.slow
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


def _half_trained():
    """At 30 % the concatenation does not reach the only layer that is trained."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    first, last = keras.layers.Dense(6), keras.layers.Dense(6)
    x = keras.layers.Concatenate()([first(x), last(x)])
    head = IDPDense(5)
    model = keras.Model(inputs, head(x))
    first.trainable = head.trainable = False
    return model


def _incomplete_in_the_image():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(IDPConv2D(10, 3, activation="relu")(inputs))
    return keras.Model(inputs, IDPDense(5)(x))


def _enlarged(enlarge, order):
    """A skip connection beside a tensor whose size TensorFlow knows only when it runs."""

    def make():
        inputs = keras.Input((8, 8, 3))
        skip = keras.layers.Conv2D(10, 3, padding="same", activation="relu")(inputs)
        x = IDPConv2D(10, 3, padding="same")(keras.layers.MaxPooling2D()(skip))
        x = keras.layers.Concatenate()([enlarge()(x), skip][::order])
        x = IDPConv2D(6, 3, padding="same", activation="relu")(x)
        return keras.Model(inputs, IDPDense(5)(keras.layers.GlobalAveragePooling2D()(x)))

    return make


def _parts_of_what_all_share():
    """Both layers read parts of the same two tensors, which all percentages share."""
    inputs = keras.Input((8, 8, 3))
    parts = [keras.layers.Conv2D(n, 3, activation="relu")(inputs) for n in (10, 6)]
    both = keras.layers.BatchNormalization()(keras.layers.Concatenate()(parts))
    x = IDPConv2D(8, 3, input_parts=(10, 6), activation="relu")(both)
    y = IDPDense(4, input_parts=(10, 6))(keras.layers.GlobalAveragePooling2D()(both))
    x = keras.layers.Concatenate()([keras.layers.GlobalAveragePooling2D()(x), y])
    return keras.Model(inputs, IDPDense(5, input_parts=(8, 4))(x))


@not_on_jax
@pytest.mark.slow
def test_parts_of_a_concatenation(monkeypatch):
    logs, actual = trained(monkeypatch, True, make=_parts_of_what_all_share)
    expected_logs, expected = trained(monkeypatch, False, make=_parts_of_what_all_share)
    np.testing.assert_allclose(logs["loss"], expected_logs["loss"], rtol=1e-4)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


_TRANSPOSED = functools.partial(kt.layers.IDPConv2DTranspose, 10, 2, strides=2)


@not_on_jax
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("enlarge", [_TRANSPOSED, keras.layers.UpSampling2D])
@pytest.mark.slow
def test_a_skip_connection_beside_an_enlarged_tensor(monkeypatch, enlarge, order):
    # The last batch is smaller, so that TensorFlow does not know the size of a batch either.
    arguments = {"make": _enlarged(enlarge, order), "batch_size": 7}
    logs, actual = trained(monkeypatch, True, **arguments)
    expected_logs, expected = trained(monkeypatch, False, **arguments)
    np.testing.assert_allclose(logs["loss"], expected_logs["loss"], rtol=1e-4)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@not_on_jax
@pytest.mark.parametrize("make", [_half_trained, _incomplete_in_the_image])
def test_layers_that_a_percentage_does_not_train_stay_out(monkeypatch, make):
    logs, actual = trained(monkeypatch, True, make=make)
    expected_logs, expected = trained(monkeypatch, False, make=make)
    np.testing.assert_allclose(logs["loss"], expected_logs["loss"], rtol=1e-4)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.tensorflow
@pytest.mark.slow
def test_a_scaled_loss_in_mixed_precision_gives_the_same_step(monkeypatch):
    def make():
        keras.config.set_dtype_policy("mixed_float16")
        try:
            return network(keras.regularizers.L2(0.01))
        finally:
            keras.config.set_dtype_policy("float32")

    logs, actual = trained(monkeypatch, True, make=make)
    expected_logs, expected = trained(monkeypatch, False, make=make)
    # Sums of numbers with 11 bits, made in another order.
    np.testing.assert_allclose(logs["loss"], expected_logs["loss"], rtol=5e-3)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-2)


@not_on_jax
def test_masked_steps_do_not_count_in_the_metrics(monkeypatch):
    """Labels are right only where the mask hides them; without the mask some would be right."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(12, 4, mask_zero=True)(inputs)
    model = keras.Model(inputs, IDPDense(5)(keras.layers.Dense(10)(x)))
    tesla = compiled(model)
    assert tesla.backward_is_sequential
    tesla.optimizer.learning_rate = 0.0
    x = np.random.default_rng(0).integers(12, size=(16, 6))
    x[:, 3:] = 0
    right = {p: tesla.predict(x, percentage=p, verbose=0).argmax(-1) for p in PERCENTAGES}
    y = np.where(x == 0, right[100], (right[100] + 1) % 5)
    logs = tesla.fit(x, y, verbose=0).history
    assert logs["p100_accuracy"] == [0.0]
    for percentage in PERCENTAGES:
        expected = (right[percentage] == y)[x != 0].mean()
        assert logs[f"p{percentage}_accuracy"] == [pytest.approx(expected, abs=1e-6)]


@not_on_jax
def test_an_embedding_in_the_shared_part_is_trained(monkeypatch):
    """On TensorFlow its gradient is sparse."""

    def run(sequential):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,), dtype="int32")
        x = keras.layers.Flatten()(keras.layers.Embedding(12, 4)(inputs))
        x = keras.layers.Dense(10, activation="relu")(x)
        tesla = compiled(keras.Model(inputs, IDPDense(5)(x)))
        if not sequential:
            monkeypatch.setattr(kt.TESLA, "backward_is_sequential", False)
        x = np.random.default_rng(0).integers(12, size=(16, 6))
        tesla.fit(x, x[:, 0] % 5, epochs=2, shuffle=False, verbose=0)
        monkeypatch.undo()
        return tesla.get_weights()

    for a, b in zip(run(True), run(False), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@not_on_jax
def test_a_single_task_takes_one_tape():
    tesla = compiled(network())
    assert tesla.backward_is_sequential
    tesla.activate([60])
    assert not tesla.backward_is_sequential


class _Own(keras.layers.Layer):
    def call(self, x):
        self.add_loss(keras.ops.sum(x**2))
        return x


class _OwnLoss(kt.TESLA):
    def compute_loss(self, *args, **kwargs):
        return 2 * super().compute_loss(*args, **kwargs)


@not_on_jax
def test_losses_that_need_all_percentages_are_differentiated_together():
    def largest(losses):
        return keras.ops.max(keras.ops.stack(list(losses.values())))

    class Own(Sum):
        def __call__(self, losses):
            return largest(losses)

    assert not compiled(network(), aggregation=largest).backward_is_sequential
    assert not compiled(network(), aggregation=Own()).backward_is_sequential
    assert not compiled(network(activity="l2")).backward_is_sequential
    inputs = keras.Input((4,))
    own = keras.Model(inputs, IDPDense(5)(_Own()(keras.layers.Dense(8)(inputs))))
    assert not compiled(own).backward_is_sequential
    subclass = _OwnLoss(network(), PERCENTAGES)
    subclass.compile("sgd", "mse", jit_compile=False)
    assert not subclass.backward_is_sequential


@not_on_jax
@pytest.mark.parametrize(("activation", "sequential"), [(None, True), ("softmax", False)])
def test_probabilities_that_all_percentages_compute_together_take_one_tape(activation, sequential):
    """A head that is the first incomplete layer runs once; see `_shares_probabilities`."""

    def make(last):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        x = keras.layers.Dense(10, activation="relu")(inputs)
        return kt.TESLA(keras.Model(inputs, IDPDense(5, activation=last)(x)), PERCENTAGES)

    x = np.random.default_rng(0).normal(size=(16, 6))
    weights = []
    for last in (activation, None):
        tesla = make(last)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=last is None)
        tesla.compile(keras.optimizers.SGD(0.5), loss, jit_compile=False)
        assert tesla.backward_is_sequential is (sequential if last else True)
        tesla.fit(x, x.argmax(-1) % 5, epochs=2, shuffle=False, verbose=0)
        weights.append(tesla.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)  # Keras' loss of probabilities is rounded


@pytest.mark.tensorflow
def test_a_step_that_xla_compiles_is_not_sequential():
    tesla = kt.TESLA(network(), PERCENTAGES)
    tesla.compile("sgd", "mse", jit_compile=True)
    assert not tesla.backward_is_sequential


def _plain(x):
    return keras.layers.Conv2D(2, 1, activation="relu")(x)


def _dense(x):
    """As in a DenseNet: reads everything before it, of which a percentage reads many parts."""
    y = keras.layers.Conv2D(3, 1)(keras.layers.BatchNormalization()(x))
    return keras.layers.Concatenate()([x, y])


def _graph_of_a_step(block, count):
    import tensorflow as tf

    inputs = keras.Input((4, 4, 2))
    x = keras.layers.Conv2D(2, 1)(inputs)
    for _ in range(count):
        x = block(x)
    outputs = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x))
    tesla = compiled(kt.to_idp(keras.Model(inputs, outputs), PERCENTAGES))
    assert tesla.backward_is_sequential
    batch = tf.zeros((2, 4, 4, 2)), tf.zeros(2, "int32")
    return tf.function(lambda: tesla.train_step(batch)).get_concrete_function().graph


@pytest.mark.tensorflow
@pytest.mark.slow
def test_control_edges_grow_linearly_with_the_network():
    """TensorFlow makes, places and runs each of them."""

    def edges(blocks):
        graph = _graph_of_a_step(_plain, blocks)
        return sum(len(operation.control_inputs) for operation in graph.get_operations())

    five, ten, twenty = map(edges, (5, 10, 20))
    assert twenty - ten == 2 * (ten - five)


@pytest.mark.tensorflow
@pytest.mark.nightly
def test_operations_grow_linearly_with_a_densely_connected_network():
    def operations(blocks):
        return len(_graph_of_a_step(_dense, blocks).get_operations())

    # From about six blocks on, a choice of channels is one operation whatever its parts.
    six, twelve, twenty_four = map(operations, (6, 12, 24))
    assert twenty_four - twelve <= 2.1 * (twelve - six)
