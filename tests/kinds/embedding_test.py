"""Embedding: a percentage looks up a part of each row."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tesla as kt
from keras_tesla.layers import IDPConv1D, IDPDense
from tests.kinds.networks import width

IDS = np.array([[0, 3, 1, 4], [2, 2, 0, 1]])


def network(**arguments):
    x = keras.Input((4,), dtype="int32")
    y = layers.Embedding(5, 8, name="wide", **arguments)(x)
    return keras.Model(x, layers.Dense(3, name="last")(ops.relu(y)))


def test_what_reads_it_becomes_incomplete_and_it_is_narrowed(assert_same_three_ways):
    model = kt.to_idp(network())
    assert isinstance(model.get_layer("last"), IDPDense)
    table = ops.convert_to_numpy(model.get_layer("wide").embeddings)
    small = assert_same_three_ways(model, IDS, 50)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(small.get_layer("wide").embeddings), table[:, :4]
    )
    assert_same_three_ways(model, IDS, 100)


def test_gradients_reach_the_columns_that_are_read(gradients):
    model = kt.to_idp(network(), percentages=[100, 50])
    tesla = kt.TESLA(model)
    table = model.get_layer("wide").embeddings
    tesla.activate([50])
    (live,) = gradients(lambda: ops.sum(tesla(IDS, training=True)["p50"] ** 2), [table])

    def scoped_loss():
        with kt.percentage_scope(50):
            return ops.sum(model(IDS) ** 2)

    (scoped,) = gradients(scoped_loss, [table])
    live, scoped = (g if isinstance(g, np.ndarray) else np.array(g) for g in (live, scoped))
    # Float32 sums in another order.
    np.testing.assert_allclose(live, scoped, rtol=1e-4, atol=1e-6)
    assert not live[:, 4:].any()
    assert live[:, :4].any()


@pytest.mark.parametrize("arguments", [{"embeddings_regularizer": "l2"}, {"mask_zero": True}])
def test_other_arguments(arguments, assert_same_three_ways):
    model = kt.to_idp(network(**arguments))
    assert width(assert_same_three_ways(model, IDS, 50)) == 4


def test_a_table_with_lora_stays_whole(assert_same_three_ways):
    model = network()
    model.get_layer("wide").enable_lora(2)
    assert width(assert_same_three_ways(kt.to_idp(model), IDS, 50)) == 8


def test_a_convolution_of_looked_up_rows(assert_same_three_ways):
    x = keras.Input((4,), dtype="int32")
    y = layers.Embedding(5, 8, name="wide")(x)
    model = keras.Model(x, IDPConv1D(3, 2)(layers.SpatialDropout1D(0.3)(y)))
    assert width(assert_same_three_ways(model, IDS, 50)) == 4


def test_its_columns_keep_their_order():
    model = network()
    ordered = kt.order_channels(model)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(ordered(IDS)), ops.convert_to_numpy(model(IDS))
    )
