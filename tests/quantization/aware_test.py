"""quantization_aware: the same model on rounded kernels, with ranges where int8 rounds."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense
from keras_tesla.quantization.kernels import FakeQuantizedKernel
from keras_tesla.quantization.ranges import ActivationRange
from tests.quantization import networks

to_numpy = keras.ops.convert_to_numpy
P = networks.PERCENTAGES


def flat(structure):
    return [to_numpy(x) for x in keras.tree.flatten(structure)]


def aware(model, trained=True):
    """The quantization-aware copy; its ranges are those of one batch."""
    copy = kt.quantization_aware(model, P)
    if trained:
        kt.TESLA(copy, P)(networks.example(model, 64), training=True)
    return copy


def chain(model):
    return [type(x).__name__.removeprefix("FakeQuantized") for x in model.layers[1:]]


@pytest.mark.parametrize("network", networks.ALL)
def test_before_training_it_is_the_model_on_rounded_kernels(network):
    model = networks.ALL[network]()
    copy = aware(model, trained=False)
    assert copy.output_names == model.output_names
    x = networks.example(model, 4)
    kernels = [layer for layer in copy.layers if isinstance(layer, FakeQuantizedKernel)]
    assert len(kernels) == sum(hasattr(layer, "kernel") for layer in model.layers)
    for new in kernels:
        old = model.get_layer(new.name.removesuffix("_sums"))
        np.testing.assert_array_equal(to_numpy(old.kernel), to_numpy(new.kernel))
        gamma = getattr(old, "coefficients", None)
        rounded = to_numpy(new.incomplete_kernel(100))
        if gamma is not None:
            shape = old.kernel.shape
            rounded = (rounded.reshape(-1, len(gamma), shape[-1]) / gamma[:, None]).reshape(shape)
        old.kernel.assign(rounded)
    for percentage in P:
        with kt.percentage_scope(percentage):
            for actual, expected in zip(flat(copy(x)), flat(model(x)), strict=True):
                # float32; kernels differ by a division and a multiplication by the profile.
                np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("percentage", P)
@pytest.mark.parametrize("network", networks.ALL)
def test_at_a_percentage_it_is_a_plain_model_that_rounds(network, percentage, run_three_ways):
    copy = aware(networks.ALL[network]())
    found = run_three_ways(copy, networks.example(copy, 16, seed=1), percentage)
    assert not any(type(x).__module__.startswith("keras_tesla") for x in found.model.operations)
    for scoped, *others in zip(
        *map(flat, (found.scoped, found.live, found.extracted)), strict=True
    ):
        for other in others:
            # Another order of float32 sums may round a number to the next of 256 values.
            assert np.sqrt(np.mean((other - scoped) ** 2)) < 0.02 * np.std(scoped)


def test_the_plain_model_is_saved_and_loaded_without_keras_tesla(tmp_path):
    small = kt.TESLA(aware(networks.cnn()), P).at(30)
    small.save(tmp_path / "small.keras")
    x = networks.example(small, 4)
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(small(x)))


def test_what_int8_fuses_is_rounded_once():
    assert chain(aware(networks.normalized())) == [
        *("ActivationRange", "Conv2D", "BatchNormalization", "ReLU", "ActivationRange"),
        *("IDPConv2D", "IDPBatchNormalization", "ReLU", "ActivationRange"),
        *("DepthwiseConv2D", "IDPBatchNormalization", "Activation", "ActivationRange"),
        *("IDPConv2D", "IDPBatchNormalization", "ActivationRange"),
        *("GlobalAveragePooling2D", "ActivationRange", "IDPDense", "ActivationRange"),
    ]
    assert chain(aware(networks.merged()))[3:] == [
        *("IDPConv2D", "ActivationRange", "Add", "ReLU", "ActivationRange"),
        *("IDPConv2D", "ActivationRange", "Concatenate", "ActivationRange"),
        *("AveragePooling2D", "ZeroPadding2D"),
        *("IDPConv2D", "ActivationRange", "Activation", "ActivationRange", "Dropout", "Flatten"),
        # The range of softmax is known.
        *("IDPDense", "ActivationRange", "Activation"),
    ]


def test_a_tensor_that_another_layer_reads_too_is_rounded():
    inputs = keras.Input((4,))
    x = layers.Dense(8)(inputs)
    outputs = IDPDense(3)(layers.Add()([x, layers.ReLU()(x)]))
    assert chain(aware(keras.Model(inputs, outputs)))[:5] == [
        *("ActivationRange", "Dense", "ActivationRange", "ReLU", "ActivationRange")
    ]


def test_before_the_first_incomplete_layer_all_percentages_have_one_range():
    copy = aware(networks.cnn())
    ranges = [layer for layer in copy.layers if isinstance(layer, ActivationRange)]
    assert [layer.percentages for layer in ranges] == [None, None, P, P, P]


def test_behind_statistics_of_each_percentage_each_has_a_range():
    """The convolution is the same everywhere, what is normalized with other statistics is not."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, use_bias=False),
            IDPBatchNormalization(P),
            layers.ReLU(),
            IDPConv2D(4, 1),
        ]
    )
    ranges = [layer for layer in aware(model).layers if isinstance(layer, ActivationRange)]
    assert [layer.percentages for layer in ranges] == [None, P, P]


def test_a_layer_called_twice_stays_one_layer():
    inputs = keras.Input((8,))
    shared = IDPDense(8, activation="relu")
    model = keras.Model(inputs, IDPDense(3)(shared(shared(layers.Dense(8)(inputs)))))
    copy = aware(model)
    assert chain(copy).count("IDPDense") == 2
    assert len(copy.trainable_weights) == len(model.trainable_weights)


def test_it_trains_evaluates_and_is_saved(tmp_path):
    model = networks.mlp()
    tesla = kt.TESLA(kt.quantization_aware(model, P), P)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    tesla.compile("adam", loss, jit_compile=False)
    x, y = networks.example(model, 64), np.arange(64) % 5
    before = tesla.evaluate(x, y, verbose=0, return_dict=True)
    tesla.fit(x, y, epochs=4, verbose=0)
    after = tesla.evaluate(x, y, verbose=0, return_dict=True)
    assert after["loss"] < before["loss"]
    tesla.save(tmp_path / "tesla.keras")
    loaded = keras.models.load_model(tmp_path / "tesla.keras")
    assert loaded.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(after)


def test_the_model_is_not_changed():
    model = networks.merged()
    before = [to_numpy(v) for v in model.weights]
    copy = aware(model)
    for v in copy.trainable_weights:
        v.assign(v + 1)
    for v, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(to_numpy(v), old)


# What is refused.


def dense(*behind, first=None):
    """A network with some layers between a Dense and an incomplete Dense layer."""
    return keras.Sequential([keras.Input((8,)), first or layers.Dense(8), *behind, IDPDense(3)])


class Own(keras.Model):
    def call(self, x):
        return x


class OwnDense(layers.Dense):
    pass


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Own(), "Call it once"),
        (lambda: keras.Sequential([IDPDense(3)]), "not built"),
        (lambda: keras.Sequential([keras.Input((3,)), layers.Dense(3)]), "no incomplete layer"),
        (lambda: dense(layers.LayerNormalization()), "'layer_normalization.*no int8 form"),
        (lambda: dense(first=OwnDense(8)), "'own_dense.*OwnDense.*no int8 form"),
        (lambda: dense(first=layers.Dense(8, "gelu")), "'dense.*gelu"),
        (lambda: dense(first=layers.Dense(8, lambda x: x)), "'dense.*no int8 form"),
        (lambda: dense(layers.Activation("silu")), "'activation.*no int8 form"),
        (lambda: dense(layers.ReLU(3.0)), "'re_lu.*no int8 form"),
        (lambda: dense(layers.ReLU(negative_slope=0.1)), "'re_lu.*no int8 form"),
        (lambda: dense(layers.BatchNormalization()), "'batch_normalization.*Conv2D"),
        (lambda: dense(first=layers.Dense(8, dtype="mixed_float16")), "'dense.*float16"),
        (
            lambda: dense(first=kt.layers.PerRange({100: layers.Dense(8)})),
            "PerRange.*no int8 form",
        ),
    ],
)
def test_a_model_without_an_int8_form_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        kt.quantization_aware(build(), P)


def test_a_normalization_that_does_not_follow_its_convolution_alone_is_refused():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3)(inputs)
    y = IDPBatchNormalization(P, name="norm")(IDPConv2D(8, 1, activation="relu")(x))
    with pytest.raises(ValueError, match="'norm'"):
        kt.quantization_aware(keras.Model(inputs, y), P)
    z = IDPConv2D(8, 1)(x)
    both = layers.Add()([z, IDPBatchNormalization(P, name="norm")(z)])
    with pytest.raises(ValueError, match="'norm'"):
        kt.quantization_aware(keras.Model(inputs, both), P)


def test_a_private_profile_is_refused():
    inputs = keras.Input((8,))
    layer = IDPDense(4, percentages=P, private_profile=True, name="private")
    with pytest.raises(
        ValueError, match="'private'.*private profile gives each percentage another"
    ):
        kt.quantization_aware(keras.Model(inputs, layer(inputs)), P)


def test_percentages_without_statistics_or_ranges_are_refused():
    with pytest.raises(ValueError, match=r"private numbers for \[100, 30\] percent. Received: 50"):
        kt.quantization_aware(networks.private(), [100, 50])
    with pytest.raises(ValueError, match="has statistics for"):
        kt.quantization_aware(networks.normalized(), [100, 33])
    copy = kt.quantization_aware(networks.mlp(), [100, 50])
    with pytest.raises(ValueError, match=r"ranges for \[100, 50\] percent. Received: 25"):
        kt.TESLA(copy, [100, 25])
    with pytest.raises(ValueError, match="integer"):
        kt.quantization_aware(networks.mlp(), [50.0])


def test_at_a_percentage_that_was_not_trained_it_says_so():
    tesla = kt.TESLA(kt.quantization_aware(networks.mlp(), P), P)
    with pytest.raises(ValueError, match="no range at 30 % yet.*Train"):
        tesla.at(30)


def test_a_dict_of_inputs_keeps_its_order():
    inputs = {"b": keras.Input((4,), name="b"), "a": keras.Input((4,), name="a")}
    both = layers.Concatenate()([inputs["b"], inputs["a"]])
    copy = kt.quantization_aware(keras.Model(inputs, IDPDense(2)(both)), P)
    assert list(copy.input) == ["b", "a"]
