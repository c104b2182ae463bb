"""Each kind: the narrowed model equals the scoped one, and is as narrow as can be."""

import importlib
import re
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_tesla.analysis.cost import multiply_adds
from keras_tesla.graph import Weight
from keras_tesla.kinds import activations, registry
from keras_tesla.kinds.kind import Whole
from keras_tesla.layers import (
    IDPBatchNormalization,
    IDPConv1D,
    IDPConv1DTranspose,
    IDPConv2D,
    IDPConv2DTranspose,
    IDPConv3D,
    IDPDense,
    IDPEinsumDense,
    IDPGroupQueryAttention,
    IDPLayerNormalization,
    IDPMultiHeadAttention,
    IDPRMSNormalization,
    IDPSeparableConv2D,
    PerRange,
)
from keras_tesla.quantization import kernels
from keras_tesla.quantization.ranges import ActivationRange
from tests.kinds.networks import image, merging, projection, through, wide, width


def reshaped():
    x = image(2)
    return keras.Model(x, IDPDense(3)(layers.Reshape((-1, 8))(wide(2)(x))))


def flattened():
    x = image(2)
    return keras.Model(x, IDPDense(3, input_channels=8)(layers.Flatten()(wide(2)(x))))


def looked_up(**arguments):
    x = image(1)
    ids = ops.cast(ops.clip(2 * ops.abs(x[..., 0]), 0, 4), "int32")
    y = layers.Embedding(5, 8, name="wide", **arguments)(ids)
    return keras.Model(x, IDPDense(3, profile="linear")(layers.ReLU()(y)))


class Own(layers.Layer):
    """Weights of its own as operands, of fewer axes than the images and of as many."""

    def build(self, shape):
        self.gamma = self.add_weight(shape=(8,), name="gamma")
        self.shift = self.add_weight(shape=(6, 6, 8), name="shift")
        self.offset = self.add_weight(shape=(1, 1, 1, 8), name="offset")

    def call(self, x):
        return self.gamma * x + ops.maximum(self.shift, 1.0) - self.offset


def attended(layer, **call):
    """An attention layer to itself, before and after a layer of 8 channels."""
    x = image(1)
    y = wide(1, "other")(x)
    return keras.Model(x, IDPDense(3)(layer(y, y, **call)))


PRIVATE = {"percentages": [100, 50, 25, 1], "private_bias": True, "private_profile": True}

EIGHT = np.linspace(1, 2, 8).astype("float32")
# It has no public name.
LayerScale = vars(sys.modules[keras.applications.ConvNeXtTiny.__module__])["LayerScale"]
StochasticDepth = vars(sys.modules[keras.applications.ConvNeXtTiny.__module__])["StochasticDepth"]

# For each kind with a rule: functions that return a model in which it narrows `wide` to 4 of 8.
NARROWED = {
    Weight: [lambda: through(Own())],
    **{
        kind: [lambda kind=kind: through(kind())]
        for kind in (layers.ELU, layers.Identity, layers.LeakyReLU, layers.ReLU)
    },
    **{
        kind: [lambda kind=kind: through(kind(0.3))]
        for kind in (layers.GaussianDropout, layers.GaussianNoise)
    },
    layers.Dropout: [
        lambda noise_shape=noise_shape: through(layers.Dropout(0.3, noise_shape=noise_shape))
        for noise_shape in (None, (None, 1, 1, 1), (None, 1, 1, None))
    ],
    layers.AlphaDropout: [lambda: through(layers.AlphaDropout(0.3), rank=0)],
    layers.SpatialDropout1D: [lambda: through(layers.SpatialDropout1D(0.3), rank=1)],
    layers.SpatialDropout2D: [lambda: through(layers.SpatialDropout2D(0.3))],
    layers.SpatialDropout3D: [lambda: through(layers.SpatialDropout3D(0.3), rank=3)],
    layers.Activation: [
        *(lambda a=a: through(layers.Activation(a)) for a in ("tanh", "gelu")),
        lambda: through(layers.Activation(layers.LeakyReLU(0.3))),
    ],
    layers.Rescaling: [
        lambda: through(layers.Rescaling(2.0, offset=-1)),
        lambda: through(layers.Rescaling(EIGHT.tolist(), offset=-1)),
        lambda: through(layers.Rescaling(np.float32(2), offset=EIGHT)),
    ],
    "applications.LayerScale": [
        lambda: through(LayerScale(0.5, 8)),
        lambda: through(LayerScale(0.5, 8), rank=0),
    ],
    layers.Dot: [lambda: merging(lambda a, b: layers.Dot(1)([b, a]), rank=1)],
    **{
        kind: [lambda kind=kind: projection(kind("ab,bc->ac", 8, bias_axes="c", name="wide"))]
        for kind in (layers.EinsumDense, IDPEinsumDense)
    },
    "applications.StochasticDepth": [lambda: through(StochasticDepth(0.3))],
    **{
        getattr(layers, f"{kind}{rank}D"): [
            lambda kind=kind, rank=rank: through(getattr(layers, f"{kind}{rank}D")(), rank)
        ]
        for rank in (1, 2, 3)
        for kind in ("MaxPooling", "ZeroPadding", "UpSampling")
    },
    **{
        getattr(layers, f"{kind}{rank}D"): [
            lambda kind=kind, rank=rank, size=size: through(
                getattr(layers, f"{kind}{rank}D")(size), rank
            )
        ]
        for rank in (1, 2, 3)
        for kind, size in {"AveragePooling": 2, "Cropping": 1}.items()
    },
    **{
        getattr(layers, f"Global{kind}Pooling{rank}D"): [
            lambda kind=kind, rank=rank, keepdims=keepdims: through(
                getattr(layers, f"Global{kind}Pooling{rank}D")(keepdims=keepdims), rank
            )
            for keepdims in (False, True)
        ]
        for rank in (1, 2, 3)
        for kind in ("Max", "Average")
    },
    **{
        getattr(layers, f"Conv{rank}D"): [
            lambda rank=rank: projection(wide(rank)),
            lambda rank=rank: projection(wide(rank, use_bias=False, activation="relu")),
        ]
        for rank in (1, 2, 3)
    },
    layers.Dense: [
        lambda: projection(wide(0)),
        lambda: projection(wide(0, use_bias=False, activation="relu")),
        lambda: keras.Model(x := image(2), IDPConv2D(3, 1)(layers.Dense(8, name="wide")(x))),
    ],
    layers.MultiHeadAttention: [
        lambda: attended(layers.MultiHeadAttention(2, 3, name="wide")),
        lambda: attended(layers.MultiHeadAttention(2, 3, use_gate=True, dropout=0.3, name="wide")),
    ],
    IDPMultiHeadAttention: [
        lambda: attended(IDPMultiHeadAttention(2, 3, name="wide")),
        lambda: through(lambda x: IDPMultiHeadAttention(5, 3)(x, x), rank=1),
    ],
    IDPLayerNormalization: [
        lambda: through(IDPLayerNormalization(), rank=0),
        lambda: through(IDPLayerNormalization()),
    ],
    IDPRMSNormalization: [lambda: through(IDPRMSNormalization(), rank=1)],
    IDPGroupQueryAttention: [
        lambda: attended(IDPGroupQueryAttention(3, 4, 2, name="wide"), use_causal_mask=True),
        lambda: through(lambda x: IDPGroupQueryAttention(3, 4, 2)(x, x), rank=1),
    ],
    IDPDense: [
        lambda: projection(IDPDense(8, name="wide", profile="linear")),
        lambda: projection(IDPDense(8, name="wide", profile="linear", trainable_profile=True)),
        lambda: projection(IDPDense(8, name="wide", **PRIVATE)),
        lambda: projection(IDPDense(8, name="wide", complete=True, **PRIVATE)),
    ],
    **{
        layer: [
            lambda layer=layer, own=own: projection(layer(8, 2, name="wide", **own))
            for own in ({"profile": "linear"}, PRIVATE)
        ]
        for layer in (IDPConv1D, IDPConv2D, IDPConv3D, IDPConv1DTranspose, IDPConv2DTranspose)
    },
    IDPSeparableConv2D: [
        lambda m=m, own=own: projection(
            IDPSeparableConv2D(8, 2, depth_multiplier=m, name="wide", **own)
        )
        for m in (1, 3)
        for own in ({"profile": "linear"}, PRIVATE)
    ],
    **{
        layer: [
            lambda layer=layer: projection(layer(8, 2, name="wide")),
            lambda layer=layer: projection(
                layer(8, 2, name="wide", use_bias=False, activation="relu")
            ),
        ]
        for layer in (
            *(layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
            *(layers.SeparableConv1D, layers.SeparableConv2D),
        )
    },
    **{
        kind: [
            lambda kind=kind, rank=rank: through(kind(2), rank),
            lambda kind=kind, rank=rank: through(
                kind(2, depth_multiplier=3, use_bias=False, activation="relu"), rank
            ),
        ]
        for rank, kind in [(1, layers.DepthwiseConv1D), (2, layers.DepthwiseConv2D)]
    },
    layers.GroupNormalization: [
        lambda: through(layers.GroupNormalization(4)),
        lambda: through(layers.GroupNormalization(-1, scale=False)),
    ],
    PerRange: [
        lambda: projection(PerRange({50: layers.Dense(8), 100: layers.Dense(8)}, name="wide"))
    ],
    layers.PReLU: [
        lambda shared=shared: through(layers.PReLU(shared_axes=shared)) for shared in (None, [1, 2])
    ],
    **{
        getattr(layers, f"Adaptive{kind}Pooling{rank}D"): [
            lambda kind=kind, rank=rank: through(
                getattr(layers, f"Adaptive{kind}Pooling{rank}D")(2), rank
            )
        ]
        for rank in (1, 2, 3)
        for kind in ("Average", "Max")
    },
    **{
        kind: [lambda kind=kind: through(kind(4, 3))]
        for kind in (layers.CenterCrop, layers.Resizing)
    },
    # Random in training, which is their default: there every channel gets the same.
    layers.RandomCrop: [lambda: through(lambda x: layers.RandomCrop(4, 3)(x, training=False))],
    layers.RandomFlip: [lambda: through(lambda x: layers.RandomFlip()(x, training=False))],
    layers.RepeatVector: [lambda: through(layers.RepeatVector(3), rank=0)],
    layers.Permute: [lambda: through(layers.Permute((2, 1, 3)))],
    layers.Flatten: [flattened],
    **{
        kind: [lambda kind=kind, axis=axis: through(kind(axis=axis)) for axis in (1, (1, -2))]
        for kind in (layers.Softmax, layers.UnitNormalization)
    },
    layers.Embedding: [
        looked_up,
        lambda: looked_up(mask_zero=True),
    ],
    layers.Reshape: [
        reshaped,
        lambda: through(layers.Reshape((9, 4, 8))),
        lambda: through(layers.Reshape((6, 6, -1))),
    ],
    layers.BatchNormalization: [
        lambda: through(layers.BatchNormalization()),
        lambda: through(layers.BatchNormalization(center=False, scale=False)),
        lambda: through(layers.BatchNormalization(axis=2), rank=1),
    ],
    IDPBatchNormalization: [lambda: through(IDPBatchNormalization([100, 50]))],
    layers.Concatenate: [
        lambda axis=axis: merging(lambda a, b: layers.Concatenate(axis=axis)([a, b]))
        for axis in (1, -2)
    ],
    **{
        kind: [lambda kind=kind: merging(lambda a, b: kind()([a, b]))]
        for kind in (
            *(layers.Add, layers.Average, layers.Maximum),
            *(layers.Minimum, layers.Multiply, layers.Subtract),
        )
    },
    "Add": [lambda: merging(lambda a, b: a + b), lambda: through(lambda a: 1.0 + a)],
    "Maximum": [lambda: merging(ops.maximum)],
    "Minimum": [lambda: merging(ops.minimum)],
    "Multiply": [lambda: merging(lambda a, b: a * b), lambda: through(lambda a: a * 2)],
    "Subtract": [lambda: merging(lambda a, b: a - b), lambda: through(lambda a: 1 - a)],
}


# Operations, by the names of their classes.
UNARY = """
    Absolute Arccos Arccosh Arcsin Arcsinh Arctan Arctanh Cbrt Ceil Celu Copy Cos Cosh Deg2rad Elu
    Erf Erfc Erfinv Exp Exp2 Expm1 Fabs Floor Gelu HardShrink HardSigmoid HardSilu HardTanh Isfinite
    Isinf Isnan LeakyRelu Log Log10 Log1p Log2 LogSigmoid LogicalNot NanToNum Negative OnesLike
    Rad2deg Reciprocal Relu Relu6 Round Rsqrt Selu Sigmoid Sign Signbit Silu Sin Sinc Sinh
    SoftShrink Softplus Softsign SparsePlus SparseSigmoid Sqrt Square Squareplus StopGradient Tan
    Tanh TanhShrink Trunc ZerosLike
""".split()
WITH_ARGUMENTS = {
    "Cast": lambda x: ops.cast(x, "bfloat16"),
    "Clip": lambda x: ops.clip(x, 0.2, 0.4),
    "SaturateCast": lambda x: ops.saturate_cast(10 * x, "uint8"),
    "Threshold": lambda x: ops.threshold(x, 0.4, -1.0),
    "Cumprod": lambda x: ops.cumprod(x, axis=1),
    "Cumsum": lambda x: ops.cumsum(x, axis=-2),
    "Flip": lambda x: ops.flip(x, axis=(1, 2)),
    "LogSoftmax": lambda x: ops.log_softmax(x, axis=1),
    "Normalize": lambda x: ops.normalize(x, axis=1),
    "Softmax": lambda x: ops.softmax(x, axis=2),
    "Sort": lambda x: ops.sort(x, axis=1),
    "Roll": lambda x: ops.roll(x, 2, axis=1),
    "Pad": lambda x: ops.pad(x, [(0, 0), (1, 1), (0, 2), (0, 0)], constant_values=3),
    "Squeeze": lambda x: ops.squeeze(ops.expand_dims(x, 1), 1),
    "ExpandDims": lambda x: ops.expand_dims(x[:, 0], -3),
    "Transpose": lambda x: ops.transpose(x, (0, 2, 1, 3)),
    "Concatenate": lambda x: ops.concatenate([x, x], axis=1),
    "Stack": lambda x: ops.stack([x, x], axis=1)[:, 0],
    "Unstack": lambda x: ops.unstack(x, 6, axis=1)[2],
    "Tile": lambda x: ops.tile(x, (1, 1, 2, 1)),
    "Repeat": lambda x: ops.repeat(x, 2, axis=1),
    "BroadcastTo": lambda x: ops.broadcast_to(x[:, :1], (3, 5, 6, 8)),
    "Reshape": lambda x: ops.reshape(x, (-1, 36, 8)),
    "Matmul": lambda x: ops.matmul(ops.ones((6, 6)), x),
    "Einsum": lambda x: ops.einsum("bhwc,bhvc->bwvc", x, x),
    "Moveaxis": lambda x: ops.moveaxis(x, (0, 2, -1), (0, 1, 3)),
    "Swapaxes": lambda x: ops.swapaxes(x, 1, -2),
    "GetItem": lambda x: x[:, None, 1, ..., ::2, :],
    "Split": lambda x: ops.add(*ops.split(x, 2, axis=1)),
    "AveragePool": lambda x: ops.average_pool(x, (2, 2), (2, 2)),
    "MaxPool": lambda x: ops.max_pool(x, (2, 2), (2, 2)),
    "Resize": lambda x: ops.image.resize(x, (4, 5)),
}
REDUCTIONS = """
    All Amax Amin Any Argmax Argmin Logsumexp Max Mean Median Min Prod Std Sum Var
""".split()
BINARY = """
    Arctan2 Divide DivideNoNan Equal FloorDivide Fmax Fmin Fmod Greater GreaterEqual Heaviside Hypot
    Less LessEqual Logaddexp LogicalAnd LogicalOr LogicalXor Mod NotEqual Power TrueDivide
""".split()


def function_of(name):
    return getattr(ops, re.sub("(?<!^)(?=[A-Z])", "_", name).lower())


def between(x):
    """Numbers from .1 to .9, on which all functions are defined but the one from 1 on."""
    return 0.1 + 0.8 * ops.sigmoid(x)


def unary(name):
    def applied(x):
        scale = {"Arccosh": 10, "Ceil": 5, "Floor": 5, "Round": 5, "Trunc": 5}.get(name, 1)
        return ops.cast(function_of(name)(scale * between(x)), "float32")

    return through(applied)


def reduced(name, axis, **keepdims):
    def applied(x):
        return ops.cast(function_of(name)(between(x), axis=axis, **keepdims), "float32")

    return through(applied)


def binary(name):
    return merging(lambda a, b: ops.cast(function_of(name)(between(a), between(b)), "float32"))


NARROWED.update({name: [lambda name=name: unary(name)] for name in UNARY})
NARROWED.update(
    {
        name: [lambda f=f: through(lambda x: ops.cast(f(between(x)), "float32"))]
        for name, f in WITH_ARGUMENTS.items()
    }
)
NARROWED.update({name: [lambda name=name: reduced(name, 1)] for name in REDUCTIONS})
NARROWED["Max"].append(lambda: reduced("Max", (1, 2)))
NARROWED["Mean"].append(lambda: reduced("Mean", (-3, -2), keepdims=True))
NARROWED.update({name: [lambda name=name: binary(name)] for name in BINARY})
NARROWED["TrueDivide"].append(lambda: through(lambda x: x / 2))
NARROWED["Power"].append(lambda: through(lambda x: x**2))
NARROWED["Negative"].append(lambda: through(lambda x: -x))
NARROWED["Where"] = [
    lambda: merging(lambda a, b: ops.where(a > 0, a, b)),
    lambda: through(lambda x: ops.where(x > 0, x, 0.1)),
]
NARROWED["Multiply"] += [
    lambda: merging(lambda a, b: a * b[..., :1]),
    lambda: merging(lambda a, b: layers.Multiply()([layers.Conv2D(1, 1)(b), a])),
    lambda: through(lambda x: x * ops.mean(x, axis=(1, 2), keepdims=True)),
]


def test_every_kind_has_a_case():
    # Those with rounded kernels and their ranges: tests/quantization. What other tests register
    # in this process: kinds/registry_test.py.
    elsewhere = {*kernels.FAKE_QUANTIZED.values(), ActivationRange, *registry._TAUGHT}
    # Only their incomplete forms are narrowed: one returns as many channels as it reads, the others
    # take the statistics of all of them.
    elsewhere |= {layers.GroupQueryAttention, layers.LayerNormalization, layers.RMSNormalization}
    whole = {cls for cls, kind in registry.registered().items() if isinstance(kind, Whole)}
    assert set(NARROWED) == set(registry.registered()) - elsewhere - whole


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=f"{kind if isinstance(kind, str) else kind.__name__}-{i}")
        for kind, makes in NARROWED.items()
        for i, make in enumerate(makes)
    ],
)
def test_narrows(make, check):
    model = make()
    extracted = check(model)
    assert width(extracted) == 4
    full = check(model, 100)
    assert width(full) == 8
    assert multiply_adds(extracted) < multiply_adds(full)


@pytest.mark.parametrize("name", sorted(activations.ELEMENTWISE - {"threshold"}))
def test_elementwise_activations_narrow(name, check):
    # `threshold` has arguments without default, so no layer takes it by name.
    assert width(check(through(layers.Activation(name), rank=0))) == 4
    assert width(check(projection(wide(0, activation=name)))) == 4


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "gelu"])
def test_functions_of_the_backend_and_of_keras_ops_narrow(name, check):
    backend = keras.backend.backend()
    package = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch.nn.functional"}[backend]
    module = importlib.import_module(package)
    own = getattr(module if backend == "torch" else module.nn, name)
    for function in (own, getattr(ops, name)):
        assert width(check(through(layers.Activation(function), rank=0))) == 4
        assert width(check(projection(wide(0, activation=function)))) == 4


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "sparsemax"])
def test_activations_over_the_channels_do_not_narrow(name, check):
    assert width(check(through(layers.Activation(name), rank=0))) == 8
    assert width(check(projection(wide(0, activation=name)))) == 8
