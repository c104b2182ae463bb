"""Random small graphs: scoped, live and extracted, a model computes the same at any percentage."""

import hypothesis
import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers, ops

from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense

PROJECTIONS = ["plain", "incomplete"]
CHANNELWISE = ["relu", "softmax", "dropout", "norm", "own_norm", "pool", "grouped"]
OPERATIONS = ["array", "slice", "split"]
MERGES = ["add", "multiply", "operator", "concatenate", "concatenate_rows"]


class RandomModel:
    """A model of `size` nodes between a first layer and an incomplete head.

    The dice are NumPy's, not Hypothesis': its examples are variations of each other, and for
    graphs forty different ones find more.
    """

    def __init__(self, size, percentage, rng):
        self.rng = rng
        self.percentage = percentage
        self.images = self.choose([True, False])
        self.x = keras.Input((3, 3, 4) if self.images else (4,))
        # The channels of an input are never narrowed: all builds on a layer that can be.
        self.tensors = [self.projection(self.x, 8)]
        for _ in range(size):
            self.tensors.append(
                self.node(self.choose(PROJECTIONS + CHANNELWISE + OPERATIONS + MERGES))
            )
        # Now and then a tensor on the way is an output, too.
        extra = self.choose([None, None, None, *self.tensors])
        self.model = keras.Model(self.x, self.head() if extra is None else [self.head(), extra])

    def choose(self, options):
        return options[self.rng.integers(len(options))]

    def projection(self, x, units, incomplete=False):
        arguments = {"activation": self.choose([None, "relu", "tanh", "softmax"])}
        if incomplete:
            arguments["profile"] = self.choose(["all_one", "linear", "harmonic"])
            arguments["input_parts"] = self.choose([None, self.parts(x.shape[-1])])
        if not self.images:
            return (IDPDense if incomplete else layers.Dense)(units, **arguments)(x)
        conv = IDPConv2D if incomplete else layers.Conv2D
        return conv(units, self.choose([1, 2]), padding="same", **arguments)(x)

    def parts(self, channels):
        """Any parts: those of concatenations on the way there, or others."""
        ends = sorted({*self.rng.integers(1, channels + 1, 2).tolist(), channels})
        return [end - start for start, end in zip([0, *ends], ends, strict=False)]

    def node(self, kind):
        # Mostly the last tensor, so that graphs are deep; now and then an earlier one.
        a = self.choose([self.tensors[-1]] * 3 + self.tensors)
        if kind in PROJECTIONS:
            return self.projection(a, self.choose([8, 5, 4]), kind == "incomplete")
        if kind in CHANNELWISE:
            return self.channelwise(kind, a.shape[-1])(a)
        if kind in OPERATIONS:
            return self.operation(kind, a)
        if kind == "concatenate":
            return layers.Concatenate()([a, self.choose(self.tensors)])
        equal = [t for t in self.tensors if t.shape[-1] == a.shape[-1]]
        b = self.choose([*equal, None])
        b = self.projection(self.x, a.shape[-1], self.choose([True, False])) if b is None else b
        if kind == "multiply":
            return layers.Multiply()([a, b])
        if kind == "operator":
            return 1 - a * b
        if kind == "concatenate_rows" and self.images:
            # Rows are cut again, so that all images keep their size.
            return layers.Cropping2D(((1, 2), (0, 0)))(layers.Concatenate(axis=1)([a, b]))
        return layers.Add()([a, b])

    def operation(self, kind, a):
        channels = a.shape[-1]
        if kind == "slice" and channels > 4:
            return self.choose([a[..., :4], a[..., 1:], a[..., 1::2], a[..., -4:]])
        if kind == "split" and channels % 2 == 0:
            first, second = ops.split(a, 2, axis=-1)
            return self.choose([second, first * ops.sigmoid(second)])
        return a * self.rng.normal(size=channels).astype("float32")

    def channelwise(self, kind, channels):
        if kind == "grouped" and self.images:
            filters = channels * self.choose([1, 2])
            groups = self.choose([n for n in range(1, channels + 1) if channels % n == 0])
            return layers.Conv2D(filters, 2, groups=groups, padding="same")
        if kind == "own_norm" and self.percentage < 100:
            return IDPBatchNormalization([100, self.percentage])
        if kind == "pool" and self.images:
            return layers.MaxPooling2D(2, strides=1, padding="same")
        return {
            "relu": layers.ReLU(),
            "softmax": layers.Softmax(),
            "dropout": layers.Dropout(0.5),
        }.get(kind, layers.BatchNormalization())

    def head(self):
        y = self.tensors[-1]
        channels = y.shape[-1]
        if self.images:
            y = self.choose([layers.Flatten, layers.GlobalAveragePooling2D])()(y)
        return IDPDense(3, input_channels=channels, input_parts=self.parts(channels))(y)


def randomize(model, rng):
    for variable in model.variables:
        if variable.name in ("kernel", "bias", "beta") or "mean" in variable.name:
            variable.assign(rng.normal(size=variable.shape) * 0.5)
        elif variable.name == "gamma" or "variance" in variable.name:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))


@hypothesis.given(
    size=st.integers(3, 8), percentage=st.integers(1, 100), seed=st.integers(0, 2**32 - 1)
)
def test_scoped_live_and_extracted_are_equal(size, percentage, seed, assert_same_three_ways):
    rng = np.random.default_rng(seed)
    model = RandomModel(size, percentage, rng).model
    randomize(model, rng)
    x = rng.normal(size=(2, *model.input.shape[1:])).astype("float32")
    # The tolerance is explained there: float32 sums in another order.
    extracted = assert_same_three_ways(model, x, percentage)
    assert all(type(layer).__module__.startswith("keras.") for layer in extracted.layers)
