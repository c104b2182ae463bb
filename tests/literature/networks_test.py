"""The papers' networks, against numbers in the papers and plain Keras."""

import keras
import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla import literature
from keras_tesla.layers import IDPConv2D, IDPDense


def test_the_mlp_is_incomplete_in_the_middle():
    model = literature.mlp(profile="harmonic")
    assert [layer.units for layer in model.layers] == [100, 100, 10]
    assert [isinstance(layer, IDPDense) for layer in model.layers] == [False, True, False]
    tesla = kt.TESLA(model)
    # First layer: only the outputs that the middle one reads; the others complete.
    for p in (10, 50, 100):
        assert kt.analysis.multiply_adds(tesla.at(p)) == 784 * p + p * 100 + 1000


def test_private_numbers_of_the_mlp():
    model = literature.mlp(private_percentages=range(100, 9, -5))
    private = [v for v in model.trainable_variables if "_p" in v.name]
    # Of 19 percentages: gain and shift of 100 units, a bias of 10 logits, and as many coefficients
    # as percentages up to it.
    assert sum(v.shape[0] for v in private) == 19 * (100 + 100 + 10) + 19 * 20 // 2
    tesla = kt.TESLA(model, [100, 10])
    assert kt.analysis.multiply_adds(tesla.at(10)) == 784 * 10 + 10 * 100 + 1000
    with pytest.raises(ValueError, match="Received: 33"):
        kt.TESLA(model, [100, 33])


def test_vgg16_has_the_size_of_its_papers():
    model = literature.vgg16(100)
    convolutions = [layer for layer in model.layers if hasattr(layer, "kernel_size")]
    filters = [layer.filters for layer in convolutions]
    assert filters == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert [isinstance(layer, IDPConv2D) for layer in convolutions] == [False] + [True] * 12
    assert isinstance(model.get_layer("fc1"), IDPDense)
    assert not isinstance(model.get_layer("logits"), IDPDense)
    # 313.2 million of the convolutions, as VGG-16's published 15.3 thousand million on 224x224
    # divided by 49, and the two fully connected layers.
    expected = 313_196_544 + 512 * 512 + 512 * 100
    assert kt.analysis.multiply_adds(kt.TESLA(model).at(100)) == expected


def test_multiply_adds_go_almost_with_the_square():
    tesla = kt.TESLA(literature.vgg16(10, width=0.25, percentages=[100, 50]), [100, 50])
    full, half = (kt.analysis.multiply_adds(tesla.at(p)) for p in (100, 50))
    assert 0.25 < half / full < 0.28  # the first layer's inputs are complete


@pytest.mark.slow
def test_it_trains_and_every_percentage_is_defined():
    keras.utils.set_random_seed(0)
    model = literature.vgg16(
        4, [100, 25], width=1 / 16, dropout=(0.1, 0.1, 0.1), weight_decay=1e-3, profile="linear"
    )
    tesla = kt.TESLA(model, [100, 25])
    tesla.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).random((8, 32, 32, 3), "float32")
    logs = tesla.fit(x, np.arange(8) % 4, verbose=0).history
    assert np.isfinite(logs["loss"]).all()
    expected = tesla.at(25).predict(x, verbose=0)
    # Thirteen layers of float32 sums in another order.
    np.testing.assert_allclose(
        tesla.predict(x, percentage=25, verbose=0), expected, rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("size", [16, 24])
def test_vgg16_has_the_same_weights_for_smaller_images(size):
    full, small = (
        literature.vgg16(10, [100, 50], 1 / 16, input_shape=(n, n, 3), private_affine=True)
        for n in (32, size)
    )
    assert [v.shape for v in small.weights] == [v.shape for v in full.weights]
    assert {"gain_p50", "shift_p50"} <= {v.name for v in small.trainable_variables}
    assert small(np.zeros((1, size, size, 3), "float32")).shape == (1, 10)


@pytest.mark.parametrize("width", [0, -1, 1 / 256])
def test_a_width_without_filters_is_refused(width):
    with pytest.raises(ValueError, match="`width` must leave every layer a filter"):
        literature.vgg16(10, width=width)
