"""What a model costs, how accurate it is and what it looks at."""

from keras_tesla.analysis.activation_gallery import activation_gallery
from keras_tesla.analysis.activation_maps import class_activation_maps
from keras_tesla.analysis.cost import multiply_adds, not_counted
from keras_tesla.analysis.plots import accuracy_over_cost
from keras_tesla.analysis.summary import summary

__all__ = [
    "accuracy_over_cost",
    "activation_gallery",
    "class_activation_maps",
    "multiply_adds",
    "not_counted",
    "summary",
]
