"""Files with attention: the corners of its kernels are stored once, and compute what Keras does."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.tflite import runtime, verify

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

ATTENTION = {
    "multi_head": lambda n, **a: layers.MultiHeadAttention(4, n // 4, **a),
    "group_query": lambda n, **a: layers.GroupQueryAttention(n // 8, 8, 4, **a),
}


def transformer(attention, channels, percentages=(100, 75, 50, 25), **call):
    """One block on 16 patches, with residual sums."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 12), name="patches")
    x = layers.Dense(channels)(inputs)
    y = layers.BatchNormalization()(x)
    x = layers.Add()([x, ATTENTION[attention](channels, bias_initializer="normal")(y, y, **call)])
    y = layers.Dense(2 * channels, activation="gelu")(layers.BatchNormalization()(x))
    x = layers.Add()([x, layers.Dense(channels)(y)])
    outputs = layers.Dense(10, name="logits")(layers.GlobalAveragePooling1D()(x))
    return kt.TESLA(kt.to_idp(keras.Model(inputs, outputs), percentages))


def size(bundle, percentage=100):
    return bundle.path(percentage).stat().st_size


@pytest.mark.parametrize("attention", ATTENTION)
def test_each_weight_is_stored_once(attention, tmp_path):
    tesla = transformer(attention, 192)
    one_file = kt.tflite.export(tesla, tmp_path / "one", mode="percentage_input")
    assert one_file.unshared_weights == []
    alone = kt.tflite.export(tesla, tmp_path / "alone", percentages=[100])
    # What is more are the graphs of the percentages, and descriptions of the corners.
    assert size(one_file) <= 1.05 * size(alone)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("call", [{}, {"use_causal_mask": True}])
def test_a_file_computes_what_keras_computes(attention, call, tmp_path):
    tesla = transformer(attention, 32, (100, 50, 10), **call)
    bundle = kt.tflite.export(tesla, tmp_path / "out", mode="percentage_input")
    inputs = verify.example_inputs(tesla.network, 4, seed=1)
    made = runtime.interpreter(bundle.path(100).read_bytes())
    for percentage in tesla.percentages:
        asked = {**inputs, "percentage": np.array([percentage], np.int32)}
        (got,) = runtime.run(made, asked, "serving_default").values()
        expected = tesla.at(percentage).predict(inputs["patches"], verbose=0)
        np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("quantization", ["dynamic_range", "int8"])
def test_quantized_at_export(quantization, tmp_path):
    tesla = transformer("multi_head", 64, (100, 50))
    typical = verify.example_inputs(tesla.network, 64)
    bundle = kt.tflite.export(
        tesla,
        tmp_path / "out",
        mode="percentage_input",
        quantization=quantization,
        representative_data=typical if quantization == "int8" else None,
    )
    assert bundle.unshared_weights == []
