"""Convolutions with `groups`: whole groups are computed, and read, or left out."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.analysis.cost import multiply_adds
from keras_tesla.layers import IDPConv2D, IDPDense
from tests.kinds.channels_first_test import skip_if_keras_cannot
from tests.kinds.networks import FIRST, image, inputs_of, randomized, wide, width

CONVOLUTIONS = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}
to_numpy = keras.ops.convert_to_numpy


def grouped(filters, groups, rank=2, readers=IDPConv2D, **arguments):
    """8 channels -> a grouped convolution -> a layer that reads a part of what it computes."""
    x = image(rank)
    conv = CONVOLUTIONS[rank](
        filters, 2, groups=groups, padding="same", name="grouped", **arguments
    )
    head = readers(3, 1) if rank == 2 else IDPDense(3)
    return keras.Model(x, head(conv(wide(rank)(x))))


@pytest.mark.parametrize(
    ("filters", "groups", "percentage", "read", "computed"),
    [
        (8, 8, 50, 4, 4),  # depthwise, as in ConvNeXt
        (8, 8, 30, 2, 2),
        (24, 8, 50, 4, 12),  # with a depth multiplier of 3
        (24, 8, 45, 4, 12),  # 10 of 24: four filters of three
        (8, 4, 50, 4, 4),  # as in ResNeXt
        (8, 4, 40, 4, 4),  # 3 of 8: two groups of two
        (4, 2, 50, 4, 2),
        (12, 4, 10, 2, 3),
        (8, 4, 100, 8, 8),
    ],
)
def test_whole_groups_are_computed(filters, groups, percentage, read, computed, check):
    extracted = check(grouped(filters, groups), percentage)
    conv = extracted.get_layer("grouped")
    assert (width(extracted), width(extracted, "grouped")) == (read, computed)
    assert conv.groups == computed * groups // filters
    assert conv.kernel.shape == (2, 2, 8 // groups, computed)


def test_a_convolution_with_groups_costs_what_a_depthwise_one_does(check):
    x = image(2)
    y = layers.DepthwiseConv2D(2, padding="same", name="grouped")(wide(2)(x))
    depthwise = keras.Model(x, IDPConv2D(3, 1)(y))
    for percentage in (100, 50):
        costs = [multiply_adds(check(m, percentage)) for m in (grouped(8, 8), depthwise)]
        assert costs[0] == costs[1]


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("arguments", [{}, {"use_bias": False, "activation": "relu"}])
def test_other_dimensions(rank, arguments, check):
    assert width(check(grouped(8, 4, rank, **arguments))) == 4


def test_plain_keras_by_hand(run_three_ways):
    """The narrowed convolution is the Keras layer with the first groups' filters."""
    model = randomized(grouped(12, 4))
    result = run_three_ways(model, inputs_of(model), 50)
    full, narrowed = (m.get_layer("grouped") for m in (model, result.model))
    by_hand = layers.Conv2D(6, 2, groups=2, padding="same")
    by_hand.build((None, 6, 6, 4))
    by_hand.set_weights([to_numpy(full.kernel)[..., :6], to_numpy(full.bias)[:6]])
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype("float32")
    np.testing.assert_array_equal(to_numpy(narrowed(x)), to_numpy(by_hand(x)))


def test_gradients(check_gradients):
    found = check_gradients(grouped(8, 4))
    assert found["grouped/kernel"][..., :4].all()
    assert not found["grouped/kernel"][..., 4:].any()
    assert not found["grouped/bias"][4:].any()


@pytest.mark.parametrize("arguments", [{"activation": "softmax"}, {"activity_regularizer": "l2"}])
def test_what_sees_all_channels_stays_whole(arguments, check):
    assert width(check(grouped(8, 4, **arguments))) == 8


def test_a_grouped_convolution_of_the_inputs_stays_whole(check):
    x = keras.Input((6, 6, 4))
    y = layers.Conv2D(8, 2, groups=4, name="grouped")(x)
    assert width(check(keras.Model(x, IDPConv2D(3, 1)(y))), "grouped") == 8


def test_parts_of_a_concatenation(check):
    """Of each part the first groups; parts that end within a group are one."""
    x = image(2)
    a, b = (layers.Conv2D(n, 1, name=f"branch_{n}")(x) for n in (4, 12))
    y = layers.Conv2D(16, 1, groups=8)(layers.Concatenate()([a, b]))
    y = layers.Conv2D(8, 1, groups=8)(y)
    model = keras.Model(x, layers.Dense(3)(layers.GlobalMaxPooling2D()(layers.Conv2D(8, 1)(y))))
    converted = kt.to_idp(model)
    assert converted.layers[-3].input_parts == (2, 6)
    small = check(converted, 50)
    assert (width(small, "branch_4"), width(small, "branch_12")) == (2, 6)
    y = layers.Conv2D(4, 1, groups=2)(layers.Concatenate()([a, b]))
    model = keras.Model(x, layers.Dense(3)(layers.Conv2D(8, 1)(y)))
    assert kt.to_idp(model).layers[-2].input_parts is None
    check(kt.to_idp(model), 50)


def test_channels_first(check):
    x = image(2, FIRST)
    y = layers.Conv2D(8, 2, groups=4, data_format=FIRST)(wide(2, data_format=FIRST)(x))
    model = keras.Model(x, IDPConv2D(3, 1, data_format=FIRST)(y))
    skip_if_keras_cannot(model)
    assert width(check(model)) == 4


def test_lora_is_folded_in(check):
    model = grouped(8, 8)
    model.get_layer("grouped").enable_lora(2)
    assert width(check(model)) == 4


def test_a_depthwise_convolution_moves_with_the_channels():
    """One with larger groups keeps them in order."""
    for filters, groups, moves in [(8, 8, True), (8, 4, False)]:
        model = randomized(grouped(filters, groups, readers=layers.Conv2D))
        ordered = kt.order_channels(model)
        x = inputs_of(model)
        # The same float32 terms in another order.
        np.testing.assert_allclose(to_numpy(ordered(x)), to_numpy(model(x)), rtol=1e-4, atol=1e-5)
        kernels = [to_numpy(m.get_layer("grouped").kernel) for m in (model, ordered)]
        assert (kernels[0] != kernels[1]).any() == moves


def test_the_conversion_report_says_so():
    report = kt.to_idp(grouped(8, 4, readers=layers.Conv2D)).conversion_report
    row = next(row for row in report if row.name == "grouped")
    assert (row.became, row.computed) == ("Conv2D", "4 of 8")
    assert row.reason == "is narrowed as it is, in whole groups"
