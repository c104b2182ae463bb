"""keras_tesla: one network, any compute budget."""

from keras_tesla import layers, profiles
from keras_tesla.percentages import active_terms
from keras_tesla.scope import current_percentage, percentage_scope
from keras_tesla.training.tesla import TESLA
