"""Arrays as operands: each channel keeps its number, one number for all is for all."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tesla as kt
from keras_tesla.layers import IDPDense
from tests.kinds.networks import inputs_of, merging, randomized, through, wide, width

EIGHT = np.linspace(1, 2, 8).astype("float32")
to_numpy = keras.ops.convert_to_numpy

OPERANDS = {
    "times an array": lambda: through(lambda x: x * EIGHT),
    "an array first": lambda: through(lambda x: ops.subtract(EIGHT, x)),
    "of all axes": lambda: through(lambda x: ops.add(x, EIGHT.reshape(1, 1, 1, 8))),
    "by keyword": lambda: through(lambda x: ops.add(x1=x, x2=EIGHT)),
    "for each position": lambda: through(lambda x: x / np.outer(EIGHT[:6], EIGHT)),
    "one for all channels": lambda: through(lambda x: x * EIGHT[:6, None]),
    "one number": lambda: through(lambda x: x * np.float32(2) + np.array([3.0], "float32")),
    "float64": lambda: through(lambda x: ops.cast(x * EIGHT.astype("float64"), "float32")),
    "a tensor": lambda: through(lambda x: x + ops.convert_to_tensor(EIGHT)),
    "of a vector": lambda: through(lambda x: ops.maximum(x, EIGHT - 1), rank=0),
    "two": lambda: through(lambda x: ops.where(EIGHT > 1.5, x, -EIGHT)),
    "two tensors": lambda: merging(lambda a, b: ops.where(EIGHT > 1.5, a, b)),
    "layer": lambda: through(lambda x: layers.Multiply()([x, EIGHT[None]]), rank=0),
    "clipped": lambda: through(lambda x: ops.clip(x, -EIGHT, 1.2)),
    "clipped at positions": lambda: through(lambda x: ops.clip(x, -EIGHT[:6, None], 1)),
    "power": lambda: through(lambda x: ops.abs(x) ** EIGHT),
}


@pytest.mark.parametrize("name", OPERANDS)
def test_an_array_is_cut_with_the_channels(name, check):
    model = OPERANDS[name]()
    assert width(check(model)) == 4
    assert width(check(model, 100)) == 8


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX takes no list for an array")
def test_lists_that_clip(check):
    model = through(lambda x: ops.clip(x, [-1.0, 0] * 4, EIGHT.tolist()))
    assert width(check(model)) == 4


def test_channels_that_repeat(check):
    x = keras.Input((3, 5))
    flat = layers.Flatten()(wide(1)(x))
    y = flat * np.arange(24, dtype="float32")
    model = keras.Model(x, IDPDense(3, input_channels=8)(y))
    assert width(check(model)) == 4


def test_readers_of_different_channels(check):
    """Each number stays with its channel where those that are read are no prefix."""
    x = keras.Input((5,))
    a, b = layers.Dense(4, name="a")(x), layers.Dense(4, name="b")(x)
    y = layers.Concatenate()([a, b]) * EIGHT
    extracted = check(keras.Model(x, IDPDense(3, input_parts=(4, 4))(y)))
    assert width(extracted, "a") == width(extracted, "b") == 2


def test_plain_keras_by_hand(run_three_ways):
    model = randomized(through(lambda x: x * EIGHT, rank=0))
    x = inputs_of(model)
    result = run_three_ways(model, x, 50)
    dense, head = (layer for layer in result.model.layers if layer.weights)
    y = (x @ to_numpy(dense.kernel) + to_numpy(dense.bias)) * EIGHT[:4]
    by_hand = y @ to_numpy(head.kernel) + to_numpy(head.bias)
    # Float32 sums in another order.
    np.testing.assert_allclose(result.extracted, by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("between", [lambda x: x * EIGHT, layers.Rescaling(EIGHT.tolist())])
def test_gradients(between, check_gradients):
    found = check_gradients(through(between))
    assert not found["wide/kernel"][..., 4:].any()


@pytest.mark.parametrize("between", [lambda x: x * EIGHT, layers.Rescaling(EIGHT.tolist())])
def test_channels_with_numbers_of_their_own_keep_their_order(between):
    x = keras.Input((5,))
    model = randomized(keras.Model(x, layers.Dense(3)(between(wide(0)(x)))))
    ordered = kt.order_channels(model)
    np.testing.assert_array_equal(
        to_numpy(ordered(inputs_of(model))), to_numpy(model(inputs_of(model)))
    )
    np.testing.assert_array_equal(
        to_numpy(ordered.get_layer("wide").kernel), to_numpy(model.get_layer("wide").kernel)
    )


def test_it_is_saved_and_converted(tmp_path):
    """An array is in the file of a model, and a layer after it becomes incomplete."""
    x = keras.Input((5,))
    model = randomized(keras.Model(x, layers.Dense(3, name="last")(wide(0)(x) * EIGHT)))
    converted = kt.to_idp(model, percentages=[100, 50])
    assert converted.get_layer("last").terms == 8
    converted.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    small, expected = (kt.TESLA(m, [100, 50]).at(50) for m in (loaded, converted))
    np.testing.assert_array_equal(
        to_numpy(small(inputs_of(model))), to_numpy(expected(inputs_of(model)))
    )
    assert width(small) == 4
