"""Which activations treat each number separately."""

import operator
import sys

import keras

from keras_tesla.kinds.kind import Channelwise
from keras_tesla.kinds.registry import kind_of

# softmax, log_softmax, sparsemax and glu mix the channels: narrowing before them would change
# values.
ELEMENTWISE = {
    *("celu elu exponential gelu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh".split()),
    *("leaky_relu linear log_sigmoid mish relu relu6 selu sigmoid silu soft_shrink".split()),
    *("softplus softsign sparse_plus sparse_sigmoid squareplus swish tanh".split()),
    *("tanh_shrink threshold".split()),
}


def is_elementwise(activation) -> bool:
    """Whether an activation, a function or a layer, treats each number separately."""
    if isinstance(activation, keras.Layer):
        kind = kind_of(activation)
        return type(kind) is Channelwise and not kind.weight_axes
    name = getattr(activation, "__name__", "")
    return name in ELEMENTWISE and any(
        activation is getattr(module, name, None) for module in _modules()
    )


def _modules():
    """Yields the modules whose functions of those names are these activations."""
    yield keras.activations
    yield keras.ops
    for path in ("tensorflow.nn", "tensorflow.math", "jax.nn", "torch", "torch.nn.functional"):
        framework, *rest = path.split(".")
        if framework in sys.modules:  # else no layer has a function of it
            module = sys.modules[framework]
            yield operator.attrgetter(".".join(rest))(module) if rest else module
