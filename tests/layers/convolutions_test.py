"""All incomplete convolutions below 100 %: the stock layer on slices.

IDPConv2D has a file of its own, which goes deeper into what all convolutions share; what all layers
promise is in contract_test.py.
"""

import keras
import numpy as np
import pytest

from keras_tesla import percentage_scope
from keras_tesla.layers import (
    IDPConv1D,
    IDPConv1DTranspose,
    IDPConv2DTranspose,
    IDPConv3D,
    IDPSeparableConv2D,
)
from tests.helpers import to_numpy
from tests.layers import kinds

KINDS = [IDPConv1D, IDPConv3D, IDPConv1DTranspose, IDPConv2DTranspose, IDPSeparableConv2D]
each_kind = pytest.mark.parametrize("cls", KINDS)


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        pytest.param(cls, arguments, id=f"{cls.__name__}-{arguments}")
        for cls in KINDS
        for arguments in [*kinds.ARGUMENTS["all"], *kinds.ARGUMENTS[cls]]
    ],
)
@pytest.mark.parametrize(
    ("percentage", "profile"), [(50, "linear"), (1, "all_one"), (100, "harmonic")]
)
def test_incomplete_equals_keras_on_slices(cls, arguments, percentage, profile):
    layer = kinds.made(cls, {"bias_initializer": "normal", **arguments, "profile": profile})
    x = kinds.example(cls, arguments)
    expected = kinds.on_slices(layer, x, percentage)
    with percentage_scope(percentage):
        actual = layer(x)
    assert actual.dtype == expected.dtype
    actual, expected = (to_numpy(keras.ops.cast(v, "float32")) for v in (actual, expected))
    # Up to 54 float32 products, summed in another order; bfloat16 keeps 8 bits of a kernel and its
    # coefficient, which are rounded together here and apart there.
    tolerance = 0.1 if "dtype" in arguments else 1e-5
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@each_kind
@pytest.mark.parametrize("complete_outputs", [False, True])
def test_gradients_stay_in_the_trained_range(cls, complete_outputs, gradients):
    layer, x = kinds.made(cls, {}), kinds.example(cls, {})
    trained = [getattr(layer, name) for name in kinds.kernel_names(layer)]

    def loss():
        return keras.ops.sum(layer(x) ** 2)

    before, whole = to_numpy(layer(x)), gradients(loss, [*trained, layer.bias])
    layer.trained_range, layer.complete_outputs = (50, 100), complete_outputs
    np.testing.assert_allclose(to_numpy(layer(x)), before, rtol=1e-4, atol=1e-5)
    inside = np.arange(6) >= 3
    outputs = np.ones(6, bool) if complete_outputs else inside
    block = inside[:, None] & outputs
    of_kernels = [block.T if kinds.is_transposed(cls) else block]
    if cls is IDPSeparableConv2D:
        of_kernels = [inside[:, None], block]
    masks = [*of_kernels, np.zeros(6, bool) if complete_outputs else inside]
    for got, want, mask in zip(gradients(loss, [*trained, layer.bias]), whole, masks, strict=True):
        np.testing.assert_allclose(got, want * mask, rtol=1e-4, atol=1e-3)
        assert not got[~np.broadcast_to(mask, got.shape)].any()
