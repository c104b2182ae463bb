"""IDPLayerNormalization and IDPRMSNormalization: Keras' classes by the statistics of a part."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import percentage_scope
from keras_tesla.layers import IDPLayerNormalization, IDPRMSNormalization

to_numpy = keras.ops.convert_to_numpy

LAYER, RMS = (
    (IDPLayerNormalization, layers.LayerNormalization),
    (IDPRMSNormalization, layers.RMSNormalization),
)
CASES = [
    *((LAYER, a) for a in [{}, {"axis": 2}, {"axis": [-1]}, {"epsilon": 0.1}, {"center": False}]),
    *((LAYER, a) for a in [{"scale": False}, {"center": False, "scale": False}]),
    *((LAYER, a) for a in [{"beta_initializer": "ones", "gamma_initializer": "normal"}]),
    *((LAYER, a) for a in [{"beta_regularizer": "l2", "gamma_constraint": "non_neg"}]),
    *((RMS, a) for a in [{}, {"axis": 2}, {"epsilon": 0.1}]),
    *((kind, {"dtype": d}) for kind in (LAYER, RMS) for d in ("mixed_bfloat16", "mixed_float16")),
]
each_case = pytest.mark.parametrize(("classes", "arguments"), CASES, ids=str)
each_class = pytest.mark.parametrize("classes", [LAYER, RMS], ids=["layer", "rms"])

SHAPE = (4, 6, 6)


def normal(*shape, seed=0):
    return (1 + 2 * np.random.default_rng(seed).normal(size=shape)).astype("float32")


def made(cls, shape=SHAPE, **arguments):
    """A built layer with weights that are neither 0 nor 1."""
    layer = cls(name="norm", **arguments)
    layer.build(shape)
    for seed, variable in enumerate(layer.weights):
        variable.assign(normal(*variable.shape, seed=seed))
    return layer


@each_case
def test_at_100_percent_it_is_the_keras_layer(classes, arguments):
    ours, theirs = (made(cls, **arguments) for cls in classes)
    assert [v.path for v in ours.weights] == [v.path for v in theirs.weights]
    x = normal(*SHAPE, seed=9)
    actual, expected = ours(x), theirs(x)
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(to_numpy(actual), to_numpy(expected))
    assert [to_numpy(v) for v in ours.losses] == [to_numpy(v) for v in theirs.losses]


@each_case
def test_the_first_channels_are_those_of_a_keras_layer_of_so_many(classes, arguments):
    ours = made(classes[0], **arguments)
    x = normal(*SHAPE, seed=9)
    first = x[..., :3]
    theirs = made(classes[1], first.shape, **arguments)
    for small, large in zip(theirs.weights, ours.weights, strict=True):
        small.assign(to_numpy(large)[:3])
    with percentage_scope(50):
        actual, expected = ours(x), theirs(first)
    assert actual.dtype == expected.dtype
    actual, expected = (to_numpy(keras.ops.cast(y, "float32")) for y in (actual, expected))
    # The same operations in another order; in half precision a rounding of the result.
    half = "16" in str(arguments.get("dtype"))
    np.testing.assert_allclose(actual[..., :3], expected, rtol=1e-2 if half else 1e-5, atol=1e-5)


@pytest.mark.parametrize(("percentage", "count"), [(100, 6), (50, 3), (34, 2), (1, 1)])
def test_every_channel_by_the_statistics_of_the_first(percentage, count):
    """By the formula of the docstrings."""
    x = normal(*SHAPE, seed=9).astype("float64")
    of = x[..., :count]
    layer, rms = made(IDPLayerNormalization, center=False, scale=False), made(IDPRMSNormalization)
    with percentage_scope(percentage):
        normalized, divided = to_numpy(layer(x)), to_numpy(rms(x))
    mean, variance = of.mean(-1, keepdims=True), of.var(-1, keepdims=True)
    # Float32; of one channel the deviation is sqrt(epsilon), and rounding is that much larger.
    close = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(normalized, (x - mean) / np.sqrt(variance + 1e-3), **close)
    square = (of**2).mean(-1, keepdims=True)
    np.testing.assert_allclose(
        divided, to_numpy(rms.scale) * x / np.sqrt(square + rms.epsilon), **close
    )


@each_class
def test_statistics_of_the_first_channels_of_each_part(classes):
    x = normal(*SHAPE, seed=9)
    with percentage_scope(50):
        by_parts = made(classes[0], input_parts=(2, 4))(x)
    by_channels = made(classes[0], statistics_of=[(0, 1), (2, 4)])(x)
    np.testing.assert_array_equal(to_numpy(by_parts), to_numpy(by_channels))
    reordered = np.take(x, [0, 2, 3, 1, 4, 5], -1)
    layer = made(classes[0])
    for variable in layer.weights:
        variable.assign(np.take(to_numpy(variable), [0, 2, 3, 1, 4, 5]))
    with percentage_scope(50):
        expected = np.take(to_numpy(layer(reordered)), [0, 3, 1, 2, 4, 5], -1)
    np.testing.assert_allclose(to_numpy(by_parts), expected, rtol=1e-5, atol=1e-5)


@each_class
def test_gradients_are_those_of_a_keras_layer_of_so_many(classes, gradients):
    ours, theirs = made(classes[0]), made(classes[1], (4, 6, 3))
    for small, large in zip(theirs.weights, ours.weights, strict=True):
        small.assign(to_numpy(large)[:3])
    x = keras.Variable(normal(*SHAPE, seed=9))

    def loss(layer, first):
        with percentage_scope(50):
            return keras.ops.sum(layer(first(x + 0))[..., :3] ** 3)

    actual = gradients(lambda: loss(ours, lambda x: x), [x, *ours.weights])
    expected = gradients(lambda: loss(theirs, lambda x: x[..., :3]), [x, *theirs.weights])
    for a, e in zip(actual, expected, strict=True):
        e = np.pad(e, [(0, n - m) for n, m in zip(a.shape, e.shape, strict=True)])
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4 * np.abs(e).max())


@each_case
def test_config_has_the_words_of_keras(classes, arguments):
    ours, theirs = (made(cls, **arguments).get_config() for cls in classes)
    assert {key: ours[key] for key in theirs} == theirs
    assert set(ours) - set(theirs) == {"percentages", "input_parts", "statistics_of"}


@each_class
@pytest.mark.parametrize(
    "arguments", [{"input_parts": (2, 4), "percentages": [100, 50]}, {"statistics_of": [(1, 3)]}]
)
def test_a_saved_layer_is_loaded(classes, arguments, tmp_path):
    x = normal(*SHAPE, seed=9)
    model = keras.Sequential([keras.Input(SHAPE[1:]), classes[0](**arguments)])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    with percentage_scope(50):
        np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(model(x)))


@each_class
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axis": [1, 2]}, r"over one axis.*Received: axis=\[1, 2\]"),
        ({"percentages": [0]}, "from 1 to 100"),
        ({"input_parts": (2, 0)}, "input_parts"),
        ({"input_parts": 3}, "input_parts"),
    ],
)
def test_arguments_that_are_refused(classes, arguments, message):
    with pytest.raises(ValueError, match=message):
        classes[0](**arguments)


@each_class
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_parts": (2, 3)}, r"sum up to its 6 channels\. Received: \(2, 3\), whose sum is 5"),
        ({"statistics_of": [(4, 7)]}, "some of its 6 channels"),
        ({"statistics_of": []}, "some of its 6 channels"),
        ({"axis": 1}, "over the last axis.*Received: axis=1 of 3 axes"),
    ],
)
def test_inputs_that_are_refused(classes, arguments, message):
    with pytest.raises(ValueError, match=message):
        classes[0](**arguments).build(SHAPE)


def test_the_deprecated_scaling_is_refused():
    with pytest.raises(ValueError, match="IDPRMSNormalization"):
        IDPLayerNormalization(rms_scaling=True)
