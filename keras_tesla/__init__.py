"""keras_tesla: one Keras network, any compute budget.

Layers that compute with a leading part of their input channels, a model that trains several such
percentages at once, and the export of each to LiteRT.
"""

from keras_tesla import (
    analysis,
    callbacks,
    compression,
    data,
    kinds,
    layers,
    literature,
    profiles,
    tflite,
    training,
)
from keras_tesla.analysis import summary
from keras_tesla.calibration import recalibrate
from keras_tesla.conversion import to_idp
from keras_tesla.functional import to_functional
from keras_tesla.kinds import register_kind
from keras_tesla.ordering import order_channels
from keras_tesla.percentages import active_terms
from keras_tesla.quantization.aware import quantization_aware
from keras_tesla.scope import current_percentage, percentage_scope
from keras_tesla.training.tesla import TESLA
from keras_tesla.version import __version__

__all__ = [
    "TESLA",
    "__version__",
    "active_terms",
    "analysis",
    "callbacks",
    "compression",
    "current_percentage",
    "data",
    "kinds",
    "layers",
    "literature",
    "order_channels",
    "percentage_scope",
    "profiles",
    "quantization_aware",
    "recalibrate",
    "register_kind",
    "summary",
    "tflite",
    "to_functional",
    "to_idp",
    "training",
]
