"""The names that the examples in docstrings use without importing them."""

import keras
import numpy as np
import pytest

import keras_tesla
from keras_tesla import layers
from keras_tesla.analysis.cost import multiply_adds
from keras_tesla.percentages import check_percentage, check_percentages
from keras_tesla.training.attenuation import GradientAttenuation


@pytest.fixture(autouse=True, scope="session")
def _names_in_doctests(doctest_namespace):
    doctest_namespace.update(
        np=np,
        keras=keras,
        kt=keras_tesla,
        TESLA=keras_tesla.TESLA,
        percentage_scope=keras_tesla.percentage_scope,
        check_percentage=check_percentage,
        check_percentages=check_percentages,
        multiply_adds=multiply_adds,
        GradientAttenuation=GradientAttenuation,
        **{name: getattr(layers, name) for name in layers.__all__},
    )
