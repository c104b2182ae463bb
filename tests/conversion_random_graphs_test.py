"""Random ordinary graphs: to_idp keeps the function, and at a percentage all ways agree."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tesla as kt
from keras_tesla import graph
from keras_tesla.extraction import extract
from keras_tesla.narrowing.plan import narrow
from tests.composites import Chain
from tests.helpers import nightly_after, randomize

BACKEND = keras.backend.backend()
# 500 on TensorFlow, 100 of them on a push; JAX compiles each again.
BATCHES, BATCH = {"tensorflow": (20, 25), "torch": (10, 10), "jax": (5, 4)}[BACKEND]

PROJECTIONS = ["project", "project", "shared", "nested", "own"]
CHANNELWISE = [
    "norm",
    "group_norm",
    "layer_norm",
    "activation",
    "pool",
    "dropout",
    "lambda",
    "operation",
]
MERGES = ["add", "multiply", "operator", "concatenate", "nested_concatenation"]
MERGES += ["squeeze_and_excite"]


class RandomGraph:
    """An ordinary Keras model of 3 to 15 layers of all kinds: images, sequences or vectors."""

    def __init__(self, rng):
        self.rng = rng
        self.rank = self.choose([0, 1, 2, 2])
        self.x = keras.Input({0: (6,), 1: (8, 6), 2: (6, 6, 3)}[self.rank])
        self.known: list = []  # layers and models to be called again
        self.tensors = [self.project(self.x, 8)]
        for _ in range(rng.integers(1, 13)):
            self.tensors.append(self.node(self.choose(PROJECTIONS + CHANNELWISE + MERGES)))
        y = self.tensors[-1]
        if self.rank and self.choose([True, False]):
            y = layers.Flatten()(y)
        elif self.rank:
            pooling = (
                layers.GlobalAveragePooling1D if self.rank == 1 else (layers.GlobalAveragePooling2D)
            )
            y = pooling()(y)
        outputs = layers.Dense(3, activation=self.choose([None, "softmax"]))(y)
        extra = self.choose([None, None, None, *self.tensors])
        self.model = keras.Model(self.x, outputs if extra is None else [outputs, extra])

    def choose(self, options):
        return options[self.rng.integers(len(options))]

    def project(self, x, units):
        arguments = {
            "activation": self.choose([None, "relu", "tanh", "softmax"]),
            "use_bias": self.choose([True, False]),
        }
        if self.rank == 0 or self.choose([True, False, False, False]):
            return layers.Dense(units, **arguments)(x)
        arguments["padding"] = "same"
        if self.rank == 1:
            padding = self.choose(["same", "causal"])
            groups = self.groups(x.shape[-1], units)
            return layers.Conv1D(units, 2, groups=groups, **{**arguments, "padding": padding})(x)
        kind = self.choose(["conv", "conv", "grouped", "transposed", "separable", "depthwise"])
        if kind == "depthwise":
            return layers.DepthwiseConv2D(2, depth_multiplier=self.choose([1, 2]), **arguments)(x)
        if kind == "separable":
            multiplier = self.choose([1, 2])
            return layers.SeparableConv2D(units, 2, depth_multiplier=multiplier, **arguments)(x)
        if kind == "transposed":
            return layers.Conv2DTranspose(units, 2, **arguments)(x)
        if kind == "grouped":  # also with a filter, or two, for each channel
            units = self.choose([units, x.shape[-1], 2 * x.shape[-1]])
        groups = self.groups(x.shape[-1], units) if kind == "grouped" else 1
        return layers.Conv2D(units, self.choose([1, 3]), groups=groups, **arguments)(x)

    def groups(self, channels, filters):
        both = [n for n in range(1, channels + 1) if channels % n == filters % n == 0]
        return self.choose(both)

    def node(self, kind):
        # Mostly the last tensor, so that graphs are deep; now and then an earlier one.
        a = self.choose([self.tensors[-1]] * 3 + self.tensors)
        if kind == "project":
            return self.project(a, self.choose([8, 6, 5]))
        if kind in ("shared", "nested", "own"):
            return self.again(kind, a)
        if kind == "concatenate":
            return layers.Concatenate()([a, self.choose(self.tensors)])
        if kind == "nested_concatenation":
            inner = layers.Concatenate()([a, self.choose(self.tensors)])
            inner = self.channelwise(self.choose(CHANNELWISE), inner.shape[-1])(inner)
            return self.project(layers.Concatenate()([self.choose(self.tensors), inner]), 7)
        if kind == "squeeze_and_excite":
            return self.gated(a) if self.rank == 2 else layers.ReLU()(a)
        if kind in MERGES:
            equal = [t for t in self.tensors if t.shape[-1] == a.shape[-1]]
            b = self.choose([*equal, None])
            b = self.project(a, a.shape[-1]) if b is None else b
            if b.shape[-1] != a.shape[-1]:  # of a depthwise convolution with more outputs
                return layers.Concatenate()([a, b])
            if kind == "operator":
                return 1 - a * b
            return (layers.Multiply if kind == "multiply" else layers.Add)()([a, b])
        if kind == "operation":
            return self.operation(a)
        return self.channelwise(kind, a.shape[-1])(a)

    def operation(self, a):
        """A function of keras.ops; positions stay as many as they are."""
        rank, channels = len(a.shape), a.shape[-1]
        numbers = np.linspace(-1, 2, channels).astype("float32")
        found = [
            lambda: a * numbers,
            lambda: ops.where(numbers > 0, a, -numbers),
            lambda: layers.Rescaling(numbers.tolist(), offset=0.5)(a),
            lambda: layers.UnitNormalization(axis=1)(a) if self.rank else a,
            lambda: ops.clip(-a, -1, 0.5),
            lambda: a / 2 - 1,
            lambda: ops.where(a > 0, a, 0.3),
            lambda: a * ops.sigmoid(layers.Dense(1)(a)),
            lambda: a * layers.Dense(1)(a),
            lambda: ops.clip(a, -numbers - 1.5, 1),
            lambda: ops.concatenate([self.choose(self.tensors), a], axis=-1),
            lambda: ops.max(ops.stack([a, -a], axis=1), axis=1),
            lambda: layers.PReLU(shared_axes=list(range(1, rank - 1)) or None)(a),
        ]
        if self.rank:
            found += [
                lambda: ops.flip(a, axis=1),
                lambda: a - ops.mean(a, axis=1, keepdims=True),
                lambda: ops.softmax(a, axis=1),
                lambda: ops.pad(a[:, 1:], [(0, 0), (0, 1), *[(0, 0)] * self.rank]),
            ]
            positions = a.shape[1:-1]
            found += [
                lambda: ops.repeat(a[:, ::2], 2, axis=1)[:, : positions[0]],
                lambda: ops.concatenate([a[:, 1:], ops.tanh(a[:, :1])], axis=1),
                lambda: layers.Reshape((*positions, channels))(layers.Reshape((-1, channels))(a)),
                lambda: layers.EinsumDense("...c,cd->...d", self.choose([8, 6]), bias_axes="d")(a),
            ]
            blocks = [n for n in (2, 3, 4) if channels % n == 0 and n < channels]
            if blocks:
                found += [lambda: self.heads(a, self.choose(blocks))] * 2
                found.append(lambda: self.shuffled(a, self.choose(blocks)))
        if self.rank == 2 and a.shape[1] == a.shape[2]:
            found.append(lambda: ops.transpose(a, (0, 2, 1, 3)))
        if channels > 4:
            found += [
                lambda: a[..., : channels - 2],
                lambda: a[..., 2:],
                lambda: a[..., ::2],
                lambda: ops.split(a, [2, 4], axis=-1)[self.choose([0, 1, 2])],
            ]
        if channels % 2 == 0:
            found.append(lambda: ops.multiply(*ops.split(a, 2, axis=-1)))
        return self.choose(found)()

    def heads(self, a, heads):
        """Attention that is written by hand."""
        flat = layers.Reshape((-1, a.shape[-1]))(a)
        split = (flat.shape[1], heads, a.shape[-1] // heads)
        q, k, v = (layers.Reshape(split)(layers.Dense(a.shape[-1])(flat)) for _ in range(3))
        scores = ops.softmax(ops.einsum("bthd,bshd->bhts", q, k) / 3)
        y = ops.matmul(scores, ops.transpose(v, (0, 2, 1, 3)))
        return layers.Reshape(a.shape[1:])(ops.transpose(y, (0, 2, 1, 3)))

    def shuffled(self, a, groups):
        *positions, channels = a.shape[1:]
        y = layers.Reshape((*positions, groups, channels // groups))(a)
        return layers.Reshape(a.shape[1:])(ops.swapaxes(y, -1, -2))

    def again(self, kind, a):
        """A layer or a nested model, called on one tensor or on two of equal shape."""
        fitting = [k for k, channels in self.known if channels == a.shape[-1]]
        if fitting and self.choose([True, False]):
            return self.choose(fitting)(a)
        layer = layers.Dense(8, activation="relu")
        if kind == "nested":
            layer = keras.Sequential(
                [keras.Input(a.shape[1:]), layer, layers.BatchNormalization(), layers.Dense(6)]
            )
        if kind == "own":
            inner = [layer, layers.Dropout(0.5), layers.Dense(self.choose([5, a.shape[-1]]))]
            if self.choose([True, False]):
                inner.insert(2, layers.BatchNormalization())
            layer = (
                Chain(*inner, Chain(layers.Dense(6)))
                if self.choose([True, False])
                else Chain(*inner)
            )
        self.known.append((layer, a.shape[-1]))
        return layer(a)

    def gated(self, a):
        channels = a.shape[-1]
        squeezed = layers.Reshape((1, 1, channels))(layers.GlobalAveragePooling2D()(a))
        gate = layers.Conv2D(4, 1, activation="relu")(squeezed)
        return layers.Multiply()([a, layers.Conv2D(channels, 1, activation="sigmoid")(gate)])

    def channelwise(self, kind, channels):
        if kind == "pool" and self.rank:
            pooling = layers.MaxPooling1D if self.rank == 1 else layers.AveragePooling2D
            return pooling(2, strides=1, padding="same")
        if kind == "group_norm":
            return layers.GroupNormalization(self.choose([1, channels]))
        return {
            "norm": layers.BatchNormalization(),
            "layer_norm": layers.LayerNormalization(),
            "dropout": layers.Dropout(0.5),
            "lambda": layers.Lambda(lambda x: x * 2.0, output_shape=lambda shape: shape),
        }.get(kind, layers.Activation(self.choose(["relu", "tanh", "softmax"])))


def outputs(model, x):
    return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x))]


def assert_close(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        # The same float32 terms in another order; a wrong channel changes the first digits.
        largest = max(1.0, float(np.abs(e).max()))
        np.testing.assert_allclose(a, e, rtol=1e-3, atol=5e-5 * largest)


@pytest.mark.slow
@pytest.mark.parametrize("batch", nightly_after(4, range(BATCHES)))
def test_random_graphs(batch):
    narrower = opened = 0
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        rng = np.random.default_rng(seed)
        model = RandomGraph(rng).model
        randomize(model, rng)
        x = rng.normal(size=(2, *model.input.shape[1:])).astype("float32")
        percentage = int(rng.integers(1, 100))
        try:
            converted = kt.to_idp(model, percentages=[100, percentage])
        except ValueError as error:
            assert "No layer of the model could be made incomplete" in str(error)  # noqa: PT017
            continue
        opened += graph.read(model).is_opened
        expected = outputs(model, x)
        if seed % 5 == 0:
            assert_close(outputs(kt.order_channels(model), x), expected)
        np.testing.assert_equal(outputs(converted, x), expected)
        tesla = kt.TESLA(converted, [100, percentage])
        assert_close(outputs(tesla.at(100), x), expected)
        with kt.percentage_scope(percentage):
            scoped = outputs(converted, x)
        small = tesla.at(percentage)
        assert_close(outputs(small, x), scoped)
        narrower += kt.analysis.multiply_adds(small) < kt.analysis.multiply_adds(model)
        if BACKEND == "tensorflow":
            from keras_tesla.tflite import convert, runtime

            fixed = extract(narrow(tesla.graph, percentage), "fixed", batch_size=2)
            interpreter = runtime.interpreter(convert.convert(fixed))
            found = runtime.run(interpreter, {fixed.inputs[0].name: x})
            assert_close([found[name] for name in convert.output_names(fixed)], scoped)
    assert narrower > BATCH // 2
    assert opened
