"""What a model costs and what it brings."""

from keras_tesla.analysis.cost import multiply_adds
from keras_tesla.analysis.plots import accuracy_over_cost

__all__ = ["accuracy_over_cost", "multiply_adds"]
