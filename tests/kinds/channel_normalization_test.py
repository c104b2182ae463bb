"""Layer and RMS normalization in whole networks: what is not counted is not computed."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.analysis.cost import multiply_adds
from keras_tesla.layers import IDPDense, IDPLayerNormalization, IDPRMSNormalization
from tests.kinds.networks import inputs_of, randomized, through, wide, width

to_numpy = keras.ops.convert_to_numpy

CLASSES = {
    "layer": (IDPLayerNormalization, layers.LayerNormalization),
    "rms": (IDPRMSNormalization, layers.RMSNormalization),
}
each_class = pytest.mark.parametrize(("incomplete", "stock"), CLASSES.values(), ids=CLASSES)


def converted(model, percentages=(100, 50), **arguments):
    return kt.to_idp(randomized(model), percentages, **arguments)


@each_class
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_what_is_before_computes_the_channels_of_the_statistics(incomplete, stock, rank, check):
    small = check(through(incomplete(name="norm"), rank))
    assert type(small.get_layer("norm")) is stock
    assert width(small) == 4


@each_class
def test_gradients_of_what_is_left_out_are_zero(incomplete, stock, check_gradients):
    found = check_gradients(through(incomplete(name="norm"), rank=1))
    of_norm = [gradient for path, gradient in found.items() if path.startswith("norm/")]
    assert len(of_norm) == (2 if stock is layers.LayerNormalization else 1)
    for gradient in of_norm:
        assert np.all(gradient[4:] == 0)
        assert np.all(gradient[:4] != 0)
    assert np.all(found["wide/kernel"][..., 4:] == 0)


@each_class
def test_where_more_channels_are_read_they_are_normalized_by_the_same_statistics(
    incomplete, stock, check, tmp_path
):
    """A layer that reads everything, and an output of the model."""
    x = keras.Input((5,))
    y = incomplete(name="norm")(layers.Dense(8, name="wide")(x))
    model = keras.Model(x, [layers.Dense(2)(y), IDPDense(3)(y)])
    small = check(model)
    assert small.get_layer("norm").statistics_of.runs == ((0, 4),)
    small.save(tmp_path / "small.keras")
    loaded, inputs = keras.saving.load_model(tmp_path / "small.keras"), inputs_of(model)
    for a, b in zip(loaded(inputs), small(inputs), strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))
    assert type(check(model, 100).get_layer("norm")) is stock


@each_class
def test_channels_that_nobody_follows(incomplete, stock, check):
    x = keras.Input((6, 4))
    y = layers.LSTM(8)(x)
    small = check(keras.Model(x, IDPDense(3)(incomplete(name="norm")(y))))
    assert small.get_layer("norm").statistics_of.runs == ((0, 4),)


@each_class
def test_each_part_of_a_concatenation(incomplete, stock, check):
    x = keras.Input((5,))
    y = layers.Concatenate()([wide(0)(x), layers.Dense(4, name="other")(x)])
    y = layers.Dense(6)(stock(name="norm")(y))
    model = converted(keras.Model(x, layers.Dense(2)(y)))
    assert model.get_layer("norm").input_parts == (8, 4)
    small = check(model)
    assert (width(small), width(small, "other")) == (4, 2)


def mixer(norm, blocks=2):
    """An MLP-Mixer of 16 patches and 32 channels."""
    x = inputs = keras.Input((16, 12))
    x = layers.Dense(32)(x)
    for _ in range(blocks):
        y = layers.Permute((2, 1))(norm()(x))
        y = layers.Dense(16)(layers.Dense(32, activation="gelu")(y))
        x = layers.Add()([x, layers.Permute((2, 1))(y)])
        y = layers.Dense(64, activation="gelu")(norm()(x))
        x = layers.Add()([x, layers.Dense(32)(y)])
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(norm()(x))))


def transformer(norm, blocks=2):
    """A vision transformer of 16 patches and 32 channels."""
    x = inputs = keras.Input((16, 12))
    x = layers.Dense(32)(x)
    for _ in range(blocks):
        y = norm()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(4, 8)(y, y)])
        y = layers.Dense(64, activation="gelu")(norm()(x))
        x = layers.Add()([x, layers.Dense(32)(y)])
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(norm()(x))))


@each_class
@pytest.mark.parametrize(("network", "most"), [(mixer, 0.34), (transformer, 0.32)])
def test_networks_with_a_residual_stream(network, most, incomplete, stock, check):
    model = converted(network(stock))
    costs = [multiply_adds(check(model, percentage)) for percentage in (50, 100)]
    assert costs[0] <= most * costs[1]


@pytest.mark.parametrize(
    ("norm", "reason"),
    [
        (layers.LayerNormalization([1, 2], name="norm"), "normalizes over several axes"),
        (layers.LayerNormalization(1, name="norm"), "along another axis than that of the channels"),
        (layers.RMSNormalization(1, name="norm"), "along another axis than that of the channels"),
    ],
)
def test_other_axes_stay_whole(norm, reason, check):
    """As Keras computes them."""
    if np.ravel(norm.axis).tolist() == [1] and keras.backend.backend() == "torch":
        pytest.skip("Keras refuses them on PyTorch.")
    x = keras.Input((8, 6))
    y = norm(layers.Dense(8, name="wide")(x))
    y = layers.Dense(4)(layers.Dense(6, name="after")(y))
    model = converted(keras.Model(x, layers.Dense(2)(y)))
    rows = {row.name: row for row in model.conversion_report}
    assert rows["norm"].became == type(norm).__name__
    assert reason in rows["norm"].reason
    assert width(check(model)) == 8


def test_what_normalizes_the_inputs_of_the_model_stays_whole(check):
    x = keras.Input((6,))
    y = layers.Dense(8)(layers.LayerNormalization(name="norm")(x))
    model = converted(keras.Model(x, layers.Dense(2)(y)))
    rows = {row.name: row for row in model.conversion_report}
    assert rows["norm"].reason == "reads the model's inputs, which are kept"
    check(model)


def test_a_normalization_alone_makes_no_network_incomplete():
    x = keras.Input((6,))
    model = keras.Model(x, layers.LayerNormalization()(layers.Dense(8)(x)))
    with pytest.raises(ValueError, match="No layer of the model could be made incomplete"):
        kt.to_idp(model)


@each_class
def test_a_layer_that_is_skipped_normalizes_by_all_channels(incomplete, stock, check):
    x = keras.Input((5,))
    y = stock(name="norm")(layers.Dense(8, name="wide")(x))
    y = layers.Dense(6, name="after")(y)
    small = check(converted(keras.Model(x, layers.Dense(2)(y)), skip=["norm"]))
    assert width(small) == 8
    assert small.get_layer("after").kernel.shape[0] == 4


@each_class
def test_ordered_through(incomplete, stock):
    """All channels of a residual stream move together, and the weights with them."""
    model = randomized(transformer(stock, blocks=1))
    ordered = kt.order_channels(model)
    x = inputs_of(model)
    np.testing.assert_allclose(
        to_numpy(ordered(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-3
    )  # float32 sums in another order, of outputs around 100
    kernels = [to_numpy(m.layers[1].kernel) for m in (model, ordered)]
    assert not np.array_equal(*kernels)
    np.testing.assert_array_equal(*(np.sort(k, axis=1) for k in kernels))


@pytest.mark.tensorflow
@pytest.mark.slow
def test_one_file_of_a_transformer(tmp_path):
    """`export` compares each percentage with Keras."""
    model = kt.TESLA(converted(transformer(layers.LayerNormalization), (100, 50, 25)))
    model.compile("sgd", "mse")
    x = inputs_of(model.network)
    model.train_on_batch(x, np.zeros((3, 10), "float32"))
    kt.tflite.export(model, tmp_path / "out", mode="percentage_input")
    file = kt.tflite.load(tmp_path / "out")
    for percentage in (100, 50, 25):
        expected = to_numpy(model.at(percentage)(x[:1]))
        np.testing.assert_allclose(file(x[:1], percentage), expected, rtol=1e-4, atol=1e-4)
