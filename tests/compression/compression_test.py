"""Pruning, clustering, quantization: what the weights and the files are afterwards."""

import importlib.util
import zlib

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import TESLA, compression
from keras_tesla.layers import IDPConv2D, IDPDense
from keras_tesla.tflite import runtime, verify
from tests.helpers import normal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.tensorflow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow_model_optimization") is None,
        reason="needs tensorflow-model-optimization",
    ),
]


X, Y = normal(64, 6, 6, 3), normal(64, 5, seed=1)
STEPS = 4  # of an epoch with batches of 16


@pytest.fixture(scope="module")
def model():
    """A network at 50 %; a layer that reads all channels makes the other ones read a slice."""
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 6, 3), name="image")
    y = layers.Conv2D(16, 3, padding="same", use_bias=False)(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    z = IDPConv2D(16, 3, padding="same", activation="relu", name="conv")(y)
    y = layers.MaxPooling2D()(layers.Add()([layers.Conv2D(16, 1, name="skip")(y), z]))
    y = layers.DepthwiseConv2D(3, padding="same")(y)
    y = IDPDense(5, input_channels=16, name="logits")(layers.Flatten()(y))
    network = keras.Model(x, y, name="net")
    # Outputs of about 3, since a range starts as -6..6 when quantization is trained.
    kernel = network.get_layer("logits").kernel
    kernel.assign(10 * kernel)
    made = TESLA(network, [100, 50]).at(50)
    assert any("GetItem" in type(operation).__name__ for operation in made.operations)
    return made


def small():
    x = keras.Input((6, 6, 3), name="image")
    y = layers.Conv2D(8, 3, strides=2)(x)
    return keras.Model(x, layers.Dense(5, name="logits")(layers.Flatten()(y)))


def fitted(model, callbacks=(), epochs=1):
    model.compile("adam", "mse")
    model.fit(X, Y, batch_size=16, epochs=epochs, callbacks=list(callbacks), verbose=0)
    return model


@pytest.fixture(scope="module")
def pruned(model):
    wrapped = compression.prune(model, 0.75, steps=STEPS)
    return compression.strip(fitted(wrapped, [compression.pruning_callback()]))


@pytest.fixture(scope="module")
def clustered(pruned):
    return compression.strip(fitted(compression.cluster(pruned, 5, preserve_sparsity=True)))


@pytest.fixture(scope="module")
def clustered_small():
    return compression.strip(compression.cluster(small(), 5))


def kernels(model):
    return {
        layer.name: layer.kernel.numpy()
        for layer in model.layers
        if type(layer).__name__ in ("Conv2D", "Dense")
    }


def int8_kernels(content):
    """The int8 weights of a file, but those of depthwise convolutions."""
    made = runtime.interpreter(content, xnnpack=False)
    details = [d for d in made.get_tensor_details() if d["dtype"] == np.int8]
    found = []
    for detail in details:
        try:
            found.append(made.get_tensor(detail["index"]))
        except ValueError:  # an activation, whose memory another one uses now
            continue
    return [w for w in found if w.ndim in (2, 4) and w.shape[0] > 1]


def outputs(content):
    return runtime.run(runtime.interpreter(content), {"image": X})["logits"]


def spread(actual, expected):
    return float(np.sqrt(np.mean((actual - expected) ** 2)) / np.std(expected))


# Plain export.


def test_float32_file_computes_what_keras_does(model):
    content = compression.to_tflite(model, batch_size=4)
    expected = model.predict(X, verbose=0)
    np.testing.assert_allclose(outputs(content), expected, rtol=1e-4, atol=1e-5)


def test_quantized_after_training(model):
    expected = model.predict(X, verbose=0)
    floats = compression.to_tflite(model)
    for arguments in (
        {"quantization": "dynamic_range"},
        {"quantization": "int8", "representative_data": {"image": X}, "int8_io": True},
    ):
        content = compression.to_tflite(model, **arguments)
        assert spread(outputs(content), expected) < 0.1
        if arguments["quantization"] == "int8":  # small weights stay float32 in the other one
            assert len(content) < len(floats)
    types = runtime.interpreter(content).get_signature_runner().get_input_details()
    assert types["image"]["dtype"] == np.int8


def test_a_wrong_file_is_not_returned(model):
    # One range for numbers of very different size: nothing is left of the small ones.
    with pytest.raises(verify.VerificationError, match="of a standard deviation"):
        compression.to_tflite(model, "int8", X * 1e4, inputs=X)


def test_names_of_dictionaries_are_those_of_the_file():
    inputs = {"b": keras.Input((4,), name="b"), "a": keras.Input((3,), name="a")}
    made = {"y": layers.Dense(2)(inputs["a"]), "x": layers.Dense(5)(inputs["b"])}
    network = keras.Model(inputs, made)
    given = {"a": normal(3, 3), "b": normal(3, 4)}
    content = compression.to_tflite(network, inputs=given)
    actual = runtime.run(runtime.interpreter(content), given)
    for name, expected in network.predict(given, verbose=0).items():
        np.testing.assert_allclose(actual[name], expected, rtol=1e-4, atol=1e-5)


# Pruning.


def test_pruned_to_the_sparsity(model, pruned):
    for name, kernel in kernels(pruned).items():
        zeros = int(np.sum(kernel == 0))
        assert zeros == round(0.75 * kernel.size), name
    depthwise = [w for w in pruned.get_weights() if w.shape == (3, 3, 8, 1)]
    assert np.all(depthwise[0] != 0)
    assert {layer.name for layer in pruned.layers} >= {layer.name for layer in model.layers}


def test_pruned_file_is_smaller_zipped(model, pruned):
    content = compression.to_tflite(pruned)
    expected = pruned.predict(X, verbose=0)
    np.testing.assert_allclose(outputs(content), expected, rtol=1e-4, atol=1e-5)
    assert len(zlib.compress(content)) < 0.8 * len(zlib.compress(compression.to_tflite(model)))


def test_without_steps_pruned_from_the_first_step():
    network = small()
    wrapped = compression.prune(network, 0.5)
    wrapped.compile("adam", "mse")
    wrapped.fit(X[:1], Y[:1], verbose=0, callbacks=[compression.pruning_callback()])
    before, after = kernels(network), kernels(compression.strip(wrapped))
    for name, kernel in after.items():
        zeros, start = kernel == 0, np.abs(before[name])
        assert np.mean(zeros) == 0.5
        # The smallest magnitudes; the only step of Adam changed a weight by up to 0.001.
        assert start[zeros].max() < start[~zeros].min() + 0.002


def test_two_of_four():
    wrapped = compression.prune_2_4(small())
    stripped = compression.strip(fitted(wrapped, [compression.pruning_callback()]))
    for name, kernel in kernels(stripped).items():
        groups = np.moveaxis(kernel, -2, -1)  # of four along the input channels; of three colours
        size = 4 if name == "logits" else 3
        zeros = np.sum(groups.reshape(-1, size) == 0, axis=-1)
        assert np.all(zeros == size - 2), name
    compression.to_tflite(stripped)


# Clustering.


def test_clustered_to_few_values_with_the_zeros_kept(pruned, clustered):
    before = kernels(pruned)
    for name, kernel in kernels(clustered).items():
        assert len(np.unique(kernel)) <= 5, name
        assert np.all(kernel[before[name] == 0] == 0), name
    content = compression.to_tflite(clustered)
    expected = clustered.predict(X, verbose=0)
    np.testing.assert_allclose(outputs(content), expected, rtol=1e-4, atol=1e-5)


def test_clustered_from_keras_but_small_kernels():
    x = keras.Input((4,))
    y = layers.Dense(2, name="few")(layers.PReLU()(layers.Dense(8, name="many")(x)))
    network = keras.Model(x, layers.Dense(1, name="fewer")(y))
    stripped = compression.strip(compression.cluster(network, 16))
    before, after = kernels(compression.to_tf_keras(network)), kernels(stripped)
    np.testing.assert_array_equal(after["few"], before["few"])
    assert len(np.unique(after["many"])) == 16


# Quantization-aware training.


@pytest.mark.parametrize(
    ("start", "arguments"),
    [
        ("model", {}),
        ("pruned", {"preserve_sparsity": True}),
        ("clustered_small", {"preserve_clusters": True}),
        ("clustered", {"preserve_sparsity": True, "preserve_clusters": True}),
    ],
)
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_quantization_aware(start, arguments, request):
    source = request.getfixturevalue(start)
    trained = fitted(compression.quantization_aware(source, **arguments))
    content = compression.to_tflite(trained, int8_io=start == "pruned")
    # What was trained is what the file computes, but for roundings of halves.
    assert spread(outputs(content), trained.predict(X, verbose=0)) < 0.1
    runner = runtime.interpreter(content).get_signature_runner()
    for details in (runner.get_input_details(), runner.get_output_details()):
        assert {d["dtype"] for d in details.values()} == {
            np.int8 if start == "pruned" else np.float32
        }
    found = int8_kernels(content)
    assert len(found) >= 2
    for kernel in found:
        if arguments.get("preserve_sparsity"):
            assert np.mean(kernel == 0) >= 0.74
        if arguments.get("preserve_clusters") and kernel.ndim == 2:
            # Convolutions have a scale for each channel, which makes other codes of one value.
            assert len(np.unique(kernel)) <= 5


# The user's models stay as they are.


def test_a_tf_keras_model_is_not_trained_with_its_copy():
    original = compression.to_tf_keras(small())
    before = [w.copy() for w in original.get_weights()]
    fitted(compression.prune(original, 0.9), [compression.pruning_callback()])
    for actual, expected in zip(original.get_weights(), before, strict=True):
        np.testing.assert_array_equal(actual, expected)


# What is refused.


@pytest.mark.parametrize("sparsity", [0, 1, 0.0, 1.0, -0.5, 50, "half", None, True, float("nan")])
def test_sparsity_is_a_share(model, sparsity):
    with pytest.raises(ValueError, match="`sparsity` must be a float between 0 and 1. Received"):
        compression.prune(model, sparsity)


@pytest.mark.parametrize("steps", [-1, 1.5, None, True])
def test_steps_are_counted(model, steps):
    with pytest.raises(ValueError, match="`steps` must be an integer, 0 or more. Received"):
        compression.prune(model, 0.5, steps)


@pytest.mark.parametrize("count", [1, 0, 2.0, None, True])
def test_clusters_are_counted(model, count):
    with pytest.raises(ValueError, match="must be an integer, 2 or more. Received"):
        compression.cluster(model, count)


def test_every_function_wants_one_percentage():
    network = keras.Sequential([keras.Input((4,)), layers.Dense(8), IDPDense(3)])
    tesla = TESLA(network, [100, 50])
    for function in (
        lambda m: compression.prune(m, 0.5),
        compression.prune_2_4,
        lambda m: compression.cluster(m, 4),
        compression.quantization_aware,
        compression.to_tflite,
    ):
        with pytest.raises(ValueError, match="pass `tesla.at"):
            function(tesla)
        with pytest.raises(ValueError, match="exists in keras_tesla only"):
            function(network)


def test_what_the_tools_cannot_do_is_said():
    convolution = keras.Sequential([keras.Input((8, 4)), layers.Conv1D(3, 3, name="odd")])
    with pytest.raises(ValueError, match="cannot quantize this model while it is trained.*odd"):
        compression.quantization_aware(convolution)
    with pytest.raises(ValueError, match="nothing to prune.*odd"):
        compression.prune_2_4(convolution)
    alone = keras.Sequential([keras.Input((8, 4)), layers.ReLU(name="odd")])
    with pytest.raises(ValueError, match="nothing to prune.*odd"):
        compression.prune(alone, 0.5)
    with pytest.raises(ValueError, match="nothing to cluster.*odd"):
        compression.cluster(alone, 4)
    import tf_keras

    unbuilt = tf_keras.Sequential([tf_keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="with the shape of its inputs"):
        compression.prune(unbuilt, 0.5)
    with pytest.raises(ValueError, match="with the shape of its inputs"):
        compression.to_tflite(unbuilt)


def test_a_forgotten_callback_fails():
    wrapped = compression.prune(small(), 0.5)
    with pytest.raises(Exception, match="UpdatePruningStep callback"):
        fitted(wrapped)


def test_strip_wants_the_end_of_pruning():
    wrapped = compression.prune(small(), 0.5, steps=2 * STEPS)
    with pytest.raises(ValueError, match="Train for 8 steps .* trained for 0"):
        compression.strip(wrapped)
    fitted(wrapped, [compression.pruning_callback()])
    with pytest.raises(ValueError, match="Train for 8 steps .* trained for 4"):
        compression.strip(wrapped)


def test_wrappers_are_not_wrapped_or_exported(model, pruned):
    wrapped, aware = compression.cluster(pruned, 4), compression.quantization_aware(pruned)
    for made in (wrapped, aware):
        for function in (
            lambda m: compression.prune(m, 0.5),
            lambda m: compression.cluster(m, 4),
            compression.quantization_aware,
        ):
            with pytest.raises(ValueError, match="is being compressed already"):
                function(made)
    with pytest.raises(ValueError, match="still has the wrappers of training"):
        compression.to_tflite(wrapped)
    for odd in (pruned, aware):
        with pytest.raises(ValueError, match="nothing to strip"):
            compression.strip(odd)
    with pytest.raises(ValueError, match="takes a tf_keras model"):
        compression.strip(model)
    with pytest.raises(ValueError, match="quantization='int8' and leave `representative_data` out"):
        compression.to_tflite(aware, "dynamic_range")
    with pytest.raises(ValueError, match="leave `representative_data` out"):
        compression.to_tflite(aware, representative_data=X)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantization": "float16"}, "`quantization` must be one of"),
        ({"quantization": "int8"}, "goes with quantization='int8'.*no representative_data"),
        ({"representative_data": X}, "goes with quantization='int8'.*some representative_data"),
        ({"int8_io": True}, "`int8_io` goes with quantization='int8'"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer"),
        ({"inputs": X[..., :2]}, r"must hold at least 1 examples of shape \(6, 6, 3\)"),
        ({"inputs": {"pixels": X}}, r"an array for each of \['image'\]. Received: \['pixels'\]"),
    ],
)
def test_arguments_of_the_file(pruned, arguments, message):
    with pytest.raises(ValueError, match=message):
        compression.to_tflite(pruned, **arguments)
