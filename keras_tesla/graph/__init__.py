"""The calls that make up a model, as plain data."""

from keras_tesla.graph.calls import Call, Graph, Tensor, evaluate, filled, takes_training, tensors
from keras_tesla.graph.opening import inside, is_own, know
from keras_tesla.graph.reading import (
    check_class,
    input_names,
    is_graph_model,
    read,
    read_subclassed,
)
from keras_tesla.graph.weight import Weight

__all__ = [
    "Call",
    "Graph",
    "Tensor",
    "Weight",
    "check_class",
    "evaluate",
    "filled",
    "input_names",
    "inside",
    "is_graph_model",
    "is_own",
    "know",
    "read",
    "read_subclassed",
    "takes_training",
    "tensors",
]
