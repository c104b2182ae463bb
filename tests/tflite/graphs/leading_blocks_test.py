"""Finding what the weights of two percentages have in common."""

import types

import numpy as np
import pytest

from keras_tesla.channels import Selection
from keras_tesla.tflite.graphs import leading_blocks
from keras_tesla.tflite.graphs.flatbuffer import Op
from keras_tesla.tflite.graphs.leading_blocks import Weight

RANDOM = np.random.default_rng(0)


def weight(value, op=Op.FULLY_CONNECTED):
    return Weight(operator=object(), op=op, tensor=0, value=np.asarray(value, "float32"))


def found(whole, narrow, op=Op.FULLY_CONNECTED, chosen=()):
    (block,) = leading_blocks.find([weight(whole, op)], [weight(narrow, op)], chosen)
    return block


def test_the_first_outputs_and_inputs_of_a_weight_are_a_leading_block():
    whole = RANDOM.standard_normal((6, 8))
    block = found(whole, whole[:4, :3])
    assert (block.whole_index, block.positions, block.scale) == (0, 1, None)
    assert found(whole, whole).scale is None


def test_other_parts_and_other_values_are_none():
    whole = RANDOM.standard_normal((6, 8))
    assert found(whole, whole[1:4, :3]) is None
    assert found(whole, whole[:4, 1:4]) is None
    assert found(whole, RANDOM.standard_normal((4, 3))) is None
    changed = whole[:4, :3].copy()
    changed[2, 1] *= 1 + 1e-5  # far more than a rounding
    assert found(whole, changed) is None


def test_a_factor_for_each_output_channel_is_found():
    whole = RANDOM.standard_normal((6, 3, 3, 8)).astype("float32")
    factor = RANDOM.uniform(0.2, 5, 4)
    narrow = (whole[:4, ..., :5] * factor[:, None, None, None]).astype("float32")
    block = found(whole, narrow, Op.CONV_2D)
    np.testing.assert_allclose(block.scale, factor, rtol=1e-6)  # of float32 products


def test_operands_of_a_transposed_convolution_come_after_the_shape_of_its_output():
    transposed = types.SimpleNamespace(inputs=[7, 1, 5])
    kernel = Weight(transposed, Op.TRANSPOSE_CONV, 1, np.zeros((2, 3, 3, 4), "float32"))
    assert (kernel.input, kernel.bias) == (5, None)
    kernel.set_bias(9)
    assert transposed.inputs == [7, 1, 5, 9]
    assert kernel.bias == 9
    dense = types.SimpleNamespace(inputs=[5, 1, -1])
    kernel = Weight(dense, Op.FULLY_CONNECTED, 1, np.zeros((2, 4), "float32"))
    assert (kernel.input, kernel.bias) == (5, None)
    kernel.set_bias(9)
    assert dense.inputs == [5, 1, 9]


@pytest.mark.parametrize("factor", [-1.0, 0.0])
def test_a_factor_that_does_not_change_places_with_relu_is_refused(factor):
    whole = RANDOM.standard_normal((6, 8)).astype("float32")
    narrow = whole[:4, :3].copy()
    narrow[1] *= factor
    assert found(whole, narrow) is None


def test_after_a_flatten_channels_are_cut_at_every_position():
    whole = RANDOM.standard_normal((6, 4, 8))  # 4 positions of 8 channels
    block = found(whole.reshape(6, 32), whole[:5, :, :3].reshape(5, 12))
    assert block.positions == 4
    assert found(whole.reshape(6, 32), whole[:5, :3].reshape(5, 24)).positions == 1


def test_a_depthwise_kernel_is_cut_in_its_last_axis():
    whole = RANDOM.standard_normal((1, 3, 3, 8)).astype("float32")
    assert found(whole, whole[..., :5], Op.DEPTHWISE_CONV_2D).scale is None
    factor = RANDOM.uniform(0.5, 2, 5)
    block = found(whole, whole[..., :5] * factor, Op.DEPTHWISE_CONV_2D)
    np.testing.assert_allclose(block.scale, factor, rtol=1e-6)


def test_kernels_of_other_sizes_and_operators_do_not_match():
    whole = RANDOM.standard_normal((6, 3, 3, 8))
    assert found(whole, whole[:, :2, :2], Op.CONV_2D) is None
    conv, dense = weight(whole[:, 0, 0], Op.CONV_2D), weight(whole[:, 0, 0])
    assert leading_blocks.find([conv], [dense]) == [None]


def test_weights_are_found_in_running_order_also_where_one_is_added():
    a, b, added = (RANDOM.standard_normal((6, 6)) for _ in range(3))
    narrow = [weight(a[:3, :3]), weight(added), weight(b[:4, :3])]
    first, second, third = leading_blocks.find([weight(a), weight(b)], narrow)
    assert (first.whole_index, second, third.whole_index) == (0, None, 1)


def test_a_part_of_each_part_is_found_where_the_network_has_such_channels():
    whole = RANDOM.standard_normal((6, 3, 3, 8)).astype("float32")
    parts = Selection.of([(0, 2), (5, 6)])
    other = Selection.of([(0, 1), (2, 3), (4, 5)])
    chosen = {(8, other), (8, parts), (9, parts)}
    factor = RANDOM.uniform(0.5, 2, (4, 1, 1, 1))
    block = found(whole, whole[:4][..., parts.indices()] * factor, Op.CONV_2D, chosen)
    assert block.columns == parts
    np.testing.assert_allclose(block.scale, factor.ravel(), rtol=1e-6)  # of float32 products
    assert found(whole, whole[:4, ..., :3], Op.CONV_2D, chosen).columns == Selection.first(3)
    assert found(whole, whole[:4][..., parts.indices()], Op.CONV_2D) is None
    of_channels = found(whole[:1], whole[:1][..., parts.indices()], Op.DEPTHWISE_CONV_2D, chosen)
    assert of_channels.columns == parts


def test_after_a_flatten_parts_are_cut_at_every_position():
    whole = RANDOM.standard_normal((6, 4, 8))
    parts = Selection.of([(0, 2), (5, 6)])
    narrow = whole[:5][..., parts.indices()].reshape(5, 12)
    block = found(whole.reshape(6, 32), narrow, chosen={(8, parts)})
    assert (block.positions, block.columns) == (4, parts)


def test_choices_are_places_among_the_channels_of_the_highest_percentage():
    whole = {"a": Selection.of([(0, 4), (6, 8)]), "b": Selection.first(3), "c": Selection.first(2)}
    narrow = {"a": Selection.of([(0, 2), (6, 7)]), "b": Selection(), "d": Selection.first(1)}
    assert leading_blocks.choices(whole, narrow) == {(6, Selection.of([(0, 2), (4, 5)]))}
    assert leading_blocks.choices(narrow, whole) == set()
