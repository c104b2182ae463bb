"""Class activation maps, against NumPy on feature maps and weights."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_tesla import TESLA
from keras_tesla import graph as graphs
from keras_tesla.analysis import activation_maps, class_activation_maps
from keras_tesla.layers import IDPConv2D, IDPDense

# float32 sums in another order, divided by the largest value of the map.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def images_of(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def model_of(shape, *stack):
    return keras.Sequential([keras.Input(shape), *stack])


def pooled(*head, strides=1, shape=(8, 8, 3)):
    """A model of feature maps "features", their mean, and a head."""
    return model_of(
        shape,
        layers.Conv2D(6, 3, strides=strides, padding="same"),
        layers.ReLU(name="features"),
        layers.GlobalAveragePooling2D(),
        *head,
    )


def flattened(*head):
    return model_of(
        (8, 8, 3),
        layers.Conv2D(6, 3, padding="same", activation="relu", name="features"),
        layers.MaxPooling2D(8, name="pool"),  # one place: no map
        layers.Flatten(),
        *head,
    )


def features_of(model, images):
    inner = keras.Model(model.inputs[0], model.get_layer("features").output)
    return ops.convert_to_numpy(inner(images))


def normalized(maps):
    maps = np.maximum(maps, 0)
    return maps / maps.max(axis=(1, 2), keepdims=True)


def gradient_path(model, images, classes):
    """The weights of the channels by Grad-CAM, whatever the head."""
    graph = graphs.read(model)
    before, feature, head, data_format = activation_maps._split(graph, None)
    (image,) = graphs.tensors(graph.inputs)
    values = graphs.evaluate(before, {image.index: ops.convert_to_tensor(images)})
    scoring = activation_maps._before_softmax(head)
    return activation_maps._mean_derivatives(scoring, values, feature, data_format, classes)


# CAM.


@pytest.mark.parametrize(
    "head",
    [
        lambda: [layers.Dense(5, name="head")],
        lambda: [layers.Dense(5, activation="softmax", name="head")],
        lambda: [layers.Dense(5, name="head"), layers.Softmax()],
        lambda: [layers.Dense(5, name="head"), layers.Activation("softmax")],
        lambda: [layers.Dropout(0.5), layers.Identity(), layers.Dense(5, name="head")],
        lambda: [layers.Dense(5, use_bias=False, name="head")],
    ],
    ids=["linear", "softmax", "softmax layer", "softmax activation", "dropout", "no bias"],
)
def test_cam_is_the_kernel_times_the_feature_maps(head):
    model, images, classes = pooled(*head()), images_of(4, 8, 8, 3), np.array([0, 4, 2, 2])
    kernel = ops.convert_to_numpy(model.get_layer("head").kernel)
    features = features_of(model, images)
    expected = [features[i] @ kernel[:, c] for i, c in enumerate(classes)]
    maps = class_activation_maps(model, images, classes)
    assert maps.shape == (4, 8, 8)
    assert maps.dtype == "float32"
    np.testing.assert_allclose(maps, normalized(expected), **CLOSE)


def test_maps_are_resized_bilinearly_to_the_image():
    model, images = pooled(layers.Dense(2, name="head"), strides=2), images_of(3, 8, 8, 3)
    kernel = ops.convert_to_numpy(model.get_layer("head").kernel)
    small = np.maximum(features_of(model, images) @ kernel[:, 1], 0)
    assert small.shape == (3, 4, 4)
    # Between the centers of the places; beyond the outermost ones their value goes on.
    centers = (np.arange(8) + 0.5) / 2 - 0.5
    matrix = np.stack([np.interp(centers, np.arange(4), row) for row in np.eye(4)], axis=1)
    maps = class_activation_maps(model, images, [1, 1, 1])
    np.testing.assert_allclose(maps, normalized(matrix @ small @ matrix.T), **CLOSE)


def test_each_map_reaches_from_0_to_1_at_most():
    maps = class_activation_maps(pooled(layers.Dense(5)), images_of(4, 8, 8, 3))
    assert maps.min() >= 0
    np.testing.assert_array_equal(maps.max(axis=(1, 2)), 1)


def test_a_class_that_nothing_speaks_for_has_a_map_of_zeros():
    model = pooled(layers.Dense(2, kernel_initializer=keras.initializers.Constant(-1)))
    np.testing.assert_array_equal(class_activation_maps(model, images_of(2, 8, 8, 3)), 0)


# Grad-CAM.


def test_on_a_pooled_linear_head_grad_cam_is_cam():
    """dy_c / df_k(x, y) is w_kc / (places) everywhere (Selvaraju et al., 2017, section 3.1)."""
    for activation in (None, "softmax"):
        model = pooled(layers.Dense(5, activation=activation, name="head"))
        kernel = ops.convert_to_numpy(model.get_layer("head").kernel)
        classes = np.array([3, 0, 1, 4])
        weights = gradient_path(model, images_of(4, 8, 8, 3), classes)
        np.testing.assert_allclose(weights * 64, kernel.T[classes], **CLOSE)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_grad_cam_through_a_maximum(activation):
    """Only the place of the maximum has a derivative, which is the weight: the mean is w / 64."""
    model = flattened(layers.Dense(5, activation=activation, name="head"))
    images, classes = images_of(4, 8, 8, 3), np.array([3, 0, 1, 4])
    kernel = ops.convert_to_numpy(model.get_layer("head").kernel)
    np.testing.assert_allclose(
        gradient_path(model, images, classes) * 64, kernel.T[classes], **CLOSE
    )
    features = features_of(model, images)
    expected = [features[i] @ kernel[:, c] for i, c in enumerate(classes)]
    np.testing.assert_allclose(
        class_activation_maps(model, images, classes), normalized(expected), **CLOSE
    )


def test_grad_cam_through_a_hidden_layer():
    """y = W2 relu(W1 mean(f)): dy_c / df = W1 diag(W1 mean(f) > 0) W2[:, c] / 64."""
    hidden, head = layers.Dense(7, activation="relu", use_bias=False), layers.Dense(3)
    model, images, classes = pooled(hidden, head), images_of(4, 8, 8, 3), [0, 1, 2, 0]
    features = features_of(model, images)
    first, second = (ops.convert_to_numpy(layer.kernel) for layer in (hidden, head))
    on = features.mean(axis=(1, 2)) @ first > 0
    weights = (on * second.T[classes]) @ first.T
    expected = np.einsum("nhwk,nk->nhw", features, weights)
    np.testing.assert_allclose(
        class_activation_maps(model, images, classes), normalized(expected), **CLOSE
    )


def test_only_the_last_feature_map_varies():
    """What goes around it, here the mean of the image, is a constant."""
    x = keras.Input((8, 8, 3))
    around = layers.GlobalAveragePooling2D()(x)
    features = layers.Conv2D(3, 3, padding="same", activation="relu", name="features")(x)
    y = layers.Multiply()([layers.GlobalAveragePooling2D()(features), around])
    model = keras.Model(x, layers.Dense(2, name="head")(y))
    images, classes = images_of(4, 8, 8, 3), [0, 1, 1, 0]
    kernel = ops.convert_to_numpy(model.get_layer("head").kernel)
    weights = kernel.T[classes] * images.mean(axis=(1, 2))
    expected = np.einsum("nhwk,nk->nhw", features_of(model, images), weights)
    np.testing.assert_allclose(
        class_activation_maps(model, images, classes), normalized(expected), **CLOSE
    )


# A network that is known to look at one place.


def detector(head):
    """On gray images: class 0 is seen by bright places, class 1 by dark ones."""
    sees = layers.Conv2D(2, 3, padding="same", activation="relu")
    model = model_of((16, 16, 1), layers.Rescaling(1.0, offset=-0.5), sees, *head)
    mean = np.full((3, 3, 1, 1), 1 / 9)
    sees.set_weights([np.concatenate([mean, -mean], axis=-1), np.zeros(2)])
    return model


def bright_and_dark():
    """A gray image with a bright square top left and a dark one bottom right."""
    image = np.full((1, 16, 16, 1), 0.5, "float32")
    image[:, 1:5, 1:5] = 1
    image[:, 11:15, 11:15] = 0
    return image


@pytest.mark.parametrize("kind", ["CAM", "Grad-CAM"])
def test_the_map_is_highest_where_the_class_is(kind):
    last = layers.Dense(2, use_bias=False)
    if kind == "CAM":
        model = detector([layers.GlobalAveragePooling2D(), last])
        last.set_weights([np.eye(2) * 2 - 1])
    else:
        model = detector([layers.Flatten(), last])
        last.set_weights([np.tile(np.eye(2) * 2 - 1, (256, 1))])
    for label, square in [(0, slice(1, 5)), (1, slice(11, 15))]:
        (map_,) = class_activation_maps(model, bright_and_dark(), [label])
        inside = np.zeros((16, 16), bool)
        inside[square, square] = True
        # All nine places that the kernel averages lie in the square only at its four inner ones.
        assert set(zip(*np.nonzero(map_ > 0.999), strict=True)) == {
            (y, x) for y in range(16)[square][1:3] for x in range(16)[square][1:3]
        }
        assert map_[~inside].max() < 0.5 * map_[inside].max() + 0.2
        other = slice(11, 15) if label == 0 else slice(1, 5)
        np.testing.assert_array_equal(map_[other, other], 0)


def test_without_classes_it_is_the_predicted_one():
    model = detector([layers.GlobalAveragePooling2D(), layers.Dense(2, use_bias=False)])
    model.layers[-1].set_weights([np.eye(2)])
    image = bright_and_dark()
    image[:, 11:13, 11:15] = 0.5  # half a dark square: the bright one wins
    images = np.concatenate([image, 1 - image])
    np.testing.assert_array_equal(
        class_activation_maps(model, images), class_activation_maps(model, images, [0, 1])
    )


# Kinds of models and images.


@pytest.mark.parametrize("percentage", [100, 50, 20])
def test_of_a_tesla_at_a_percentage(percentage):
    positive = keras.initializers.RandomUniform(0.1, 1)  # so that no map is zero
    model = model_of(
        (8, 8, 3),
        layers.Conv2D(10, 3, padding="same", activation="relu"),
        IDPConv2D(10, 3, padding="same", activation="relu", name="features"),
        layers.GlobalAveragePooling2D(),
        IDPDense(4, name="head", profile="linear", kernel_initializer=positive),
    )
    small, images = TESLA(model).at(percentage), images_of(2, 8, 8, 3)
    kernel = ops.convert_to_numpy(small.get_layer("head").kernel)
    assert kernel.shape == (percentage // 10, 4)
    expected = features_of(small, images) @ kernel[:, 1]
    np.testing.assert_allclose(
        class_activation_maps(small, images, [1, 1]), normalized(expected), **CLOSE
    )


def test_the_full_network_gives_the_maps_of_100_percent():
    """Its head is no plain Dense, so it is Grad-CAM: the same map."""
    model = pooled(IDPDense(4, profile="linear", activation="softmax"))
    images = images_of(2, 8, 8, 3)
    np.testing.assert_allclose(
        class_activation_maps(model, images),
        class_activation_maps(TESLA(model).at(100), images),
        **CLOSE,
    )


@pytest.mark.parametrize("hidden", [False, True], ids=["CAM", "Grad-CAM"])
def test_channels_first(hidden):
    def model_in(data_format, shape):
        return model_of(
            shape,
            layers.Conv2D(5, 3, strides=2, data_format=data_format),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(data_format=data_format),
            *([layers.Dense(4, activation="relu")] if hidden else []),
            layers.Dense(2),
        )

    last, first = (
        model_in("channels_last", (9, 11, 3)),
        model_in("channels_first", (3, 9, 11)),
    )
    first.set_weights(last.get_weights())
    images = images_of(2, 9, 11, 3)
    maps = class_activation_maps(first, np.moveaxis(images, -1, 1), [0, 1])
    assert maps.shape == (2, 9, 11)
    np.testing.assert_allclose(maps, class_activation_maps(last, images, [0, 1]), **CLOSE)


def test_images_of_integers_and_of_open_size():
    model = pooled(layers.Dense(3), shape=(None, None, 3))
    images = np.random.default_rng(0).integers(0, 256, (2, 7, 9, 3), dtype="uint8")
    maps = class_activation_maps(model, images, [0, 1])
    assert maps.shape == (2, 7, 9)
    np.testing.assert_array_equal(
        maps, class_activation_maps(model, images.astype("float32"), [0, 1])
    )


def test_nested_models_shared_layers_and_operators():
    block = model_of((8, 8, 3), layers.Conv2D(3, 3, padding="same", activation="relu"))
    x = keras.Input((8, 8, 3))
    y = ops.maximum(block(block(x)), 0.1) + 1.0
    y = layers.Dense(4, name="head")(layers.GlobalAveragePooling2D()(y))
    model, images = keras.Model(x, ops.softmax(y)), images_of(2, 8, 8, 3)
    features = np.maximum(ops.convert_to_numpy(block(block(images))), 0.1) + 1
    kernel = ops.convert_to_numpy(model.get_layer("head").kernel)
    expected = features @ kernel[:, 2]
    np.testing.assert_allclose(
        class_activation_maps(model, images, [2, 2]), normalized(expected), **CLOSE
    )


@pytest.mark.parametrize("hidden", [False, True], ids=["CAM", "Grad-CAM"])
def test_mixed_precision(hidden):
    def model_in(dtype):
        return model_of(
            (8, 8, 3),
            layers.Conv2D(6, 3, dtype=dtype, activation="relu"),
            layers.GlobalAveragePooling2D(dtype=dtype),
            *([layers.Dense(4, activation="relu", dtype=dtype)] if hidden else []),
            layers.Dense(3, dtype=dtype),
            layers.Softmax(dtype="float32"),
        )

    mixed, full = model_in("mixed_bfloat16"), model_in("float32")
    mixed.set_weights(full.get_weights())
    images = images_of(2, 8, 8, 3)
    maps = class_activation_maps(mixed, images, [0, 1])
    assert maps.dtype == "float32"
    # bfloat16 has 8 bits: an error of 1/256 in each factor.
    np.testing.assert_allclose(maps, class_activation_maps(full, images, [0, 1]), atol=0.05)


def test_nothing_is_done_to_the_model():
    model = pooled(layers.Dropout(0.5), layers.Dense(3, activation="softmax"))
    before, layer = model.get_weights(), model.get_layer("features")
    output = layer.output
    class_activation_maps(model, images_of(2, 8, 8, 3))
    assert layer.output is output
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


# Bad input.


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize("bad", [Subclassed(), None, "model.keras", layers.Dense(3)])
def test_only_models_whose_graph_can_be_read(bad):
    with pytest.raises(ValueError, match=r"must be a Functional or Sequential one.* Received: "):
        class_activation_maps(bad, images_of(1, 8, 8, 3))


def test_a_tesla_has_a_map_at_a_percentage_only():
    tesla = TESLA(pooled(IDPDense(3)), [100, 50])
    with pytest.raises(ValueError, match=r"must be a Functional or Sequential one.*TESLA"):
        class_activation_maps(tesla, images_of(1, 8, 8, 3))


def test_a_model_that_is_not_built():
    with pytest.raises(ValueError, match=r"is not built, so its shapes are unknown"):
        class_activation_maps(keras.Sequential([layers.Dense(3)]), images_of(1, 8, 8, 3))


def test_a_model_without_a_feature_map():
    model = model_of((8, 8, 3), layers.Flatten(name="flat"), layers.Dense(2, name="out"))
    message = r"feature map of more than one place, .* Received layers: \['flat', 'out'\]"
    with pytest.raises(ValueError, match=message):
        class_activation_maps(model, images_of(1, 8, 8, 3))


def test_a_map_of_one_place_is_none():
    model = model_of((8, 8, 3), layers.Conv2D(4, 8), layers.Flatten(), layers.Dense(2))
    with pytest.raises(ValueError, match=r"feature map of more than one place"):
        class_activation_maps(model, images_of(1, 8, 8, 3))


def test_a_model_that_does_not_take_images():
    model = model_of((784,), layers.Reshape((28, 28, 1)), layers.Conv2D(2, 3), layers.Flatten())
    with pytest.raises(ValueError, match=r"one input of images, .* shapes \[\(None, 784\)\]"):
        class_activation_maps(model, images_of(1, 784))


def test_a_model_of_two_inputs():
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    y = layers.GlobalAveragePooling2D()(layers.Add()([a, b]))
    with pytest.raises(ValueError, match=r"one input of images, .* 8, 3\), \(None, 8, 8, 3\)\]"):
        class_activation_maps(keras.Model([a, b], y), images_of(1, 8, 8, 3))


def test_a_model_that_does_not_classify():
    model = model_of((8, 8, 3), layers.Conv2D(2, 3))
    message = r"one output, \(batch, classes\)\. Received: .* \[\(None, 6, 6, 2\)\]"
    with pytest.raises(ValueError, match=message):
        class_activation_maps(model, images_of(1, 8, 8, 3))


def test_a_model_of_two_outputs():
    x = keras.Input((8, 8, 3))
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    model = keras.Model(x, [layers.Dense(2)(y), layers.Dense(3)(y)])
    with pytest.raises(ValueError, match=r"one output, .* \[\(None, 2\), \(None, 3\)\]"):
        class_activation_maps(model, images_of(1, 8, 8, 3))


@pytest.mark.parametrize("shape", [(8, 8, 3), (2, 8, 8, 1), (2, 8, 9, 3), (0, 8, 8, 3), (2, 192)])
def test_images_of_another_shape(shape):
    message = r"shape that the model takes, \(None, 8, 8, 3\), at least one\. Received: shape \("
    with pytest.raises(ValueError, match=message):
        class_activation_maps(pooled(layers.Dense(2)), np.zeros(shape, "float32"))


@pytest.mark.parametrize(
    "classes",
    [[0, 3], [-1, 0], [0], [0, 1, 2], [[0, 1]], 0, [0.0, 1.0], [True, False]],
    ids=["too high", "negative", "too few", "too many", "rank 2", "one", "floats", "bools"],
)
def test_classes_that_the_model_does_not_have(classes):
    message = r"must be 2 integers from 0 to 2, one for each image\. Received: "
    with pytest.raises(ValueError, match=message):
        class_activation_maps(pooled(layers.Dense(3)), images_of(2, 8, 8, 3), classes)


def test_a_named_layer_gives_the_feature_map():
    """A Grad-CAM of the map before a pool has finer places than that of the pool."""
    keras.utils.set_random_seed(0)
    model = model_of(
        (8, 8, 3),
        layers.Conv2D(6, 3, padding="same", activation="relu", name="fine"),
        layers.MaxPooling2D(4, name="coarse"),
        layers.Flatten(),
        layers.Dense(5),
    )
    images = images_of(3, 8, 8, 3)
    default = class_activation_maps(model, images, [0, 1, 2])
    coarse = class_activation_maps(model, images, [0, 1, 2], layer="coarse")
    fine = class_activation_maps(model, images, [0, 1, 2], layer="fine")
    np.testing.assert_array_equal(coarse, default)
    # The map of the pool is interpolated from 2x2 places: it is linear between their centres.
    assert np.abs(np.diff(coarse[:, 2:6], n=2, axis=1)).max() < 1e-5
    assert np.abs(np.diff(fine[:, 2:6], n=2, axis=1)).max() > 0.1


@pytest.mark.parametrize("name", ["features_2", "dense"])
def test_a_layer_without_a_feature_map(name):
    model = pooled(layers.Dense(4, name="dense"))
    with pytest.raises(ValueError, match=f"layer '{name}' must compute a feature map"):
        class_activation_maps(model, images_of(1, 8, 8, 3), layer=name)
