"""The table of costs: its exact text, and its numbers against the extracted models."""

import re

import keras
import numpy as np
import pytest
from keras import layers

from keras_tesla import TESLA
from keras_tesla.analysis import multiply_adds, summary
from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense, PerRange


def text_of(model, *args, **kwargs):
    printed = []
    assert summary(model, *args, print_fn=printed.append, **kwargs) is None
    (text,) = printed  # one string, also for a logger
    return text


def blocks_of(text):
    """{title: {row: numbers of the columns}} of a table."""
    _, *blocks = text.split("\n\n")
    tables = {}
    for block in blocks:
        lines = [line for line in block.splitlines() if set(line) != {"-"}]
        rows = [re.split(r"\s{2,}", line) for line in lines]
        tables[rows[0][0]] = {
            name: [float(cell.replace(",", "").removesuffix(" %")) for cell in cells]
            for name, *cells in rows[1:]
        }
    return tables


def mlp():
    return keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(100, activation="relu", name="first"),
            IDPDense(100, activation="relu", name="middle"),
            layers.Dense(10, name="last"),
        ],
        name="mlp",
    )


def cnn():
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="stem"),
            IDPConv2D(32, 3, use_bias=False, name="conv"),
            IDPBatchNormalization([100, 50], name="norm"),
            layers.ReLU(name="relu"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(10, name="classes"),
        ],
        name="cnn",
    )


# The text.

MLP = """\
Model: "mlp"

Multiply-adds    100 %     75 %     50 %     25 %
-------------------------------------------------
first           78,400   58,800   39,200   19,600
middle          10,000    7,500    5,000    2,500
last             1,000    1,000    1,000    1,000
-------------------------------------------------
Total           89,400   67,300   45,200   23,100
of 100 %       100.0 %   75.3 %   50.6 %   25.8 %

Parameters       100 %     75 %     50 %     25 %
-------------------------------------------------
first           78,500   58,875   39,250   19,625
middle          10,100    7,600    5,100    2,600
last             1,010    1,010    1,010    1,010
-------------------------------------------------
Total           89,610   67,485   45,360   23,235
of 100 %       100.0 %   75.3 %   50.6 %   25.9 %

Bytes            100 %     75 %     50 %     25 %
-------------------------------------------------
first          314,000  235,500  157,000   78,500
middle          40,400   30,400   20,400   10,400
last             4,040    4,040    4,040    4,040
-------------------------------------------------
Total          358,440  269,940  181,440   92,940
of 100 %       100.0 %   75.3 %   50.6 %   25.9 %"""

CNN = """\
Model: "cnn"

Multiply-adds      100 %       50 %
-----------------------------------
stem             442,368    221,184
conv           4,147,200  2,073,600
norm                   0          0
classes              320        320
-----------------------------------
Total          4,589,888  2,295,104
of 100 %         100.0 %     50.0 %

Parameters         100 %       50 %
-----------------------------------
stem                 448        224
conv               4,608      2,304
norm                 128        128
classes              330        330
-----------------------------------
Total              5,514      2,986
of 100 %         100.0 %     54.2 %

Bytes              100 %       50 %
-----------------------------------
stem               1,792        896
conv              18,432      9,216
norm                 512        512
classes            1,320      1,320
-----------------------------------
Total             22,056     11,944
of 100 %         100.0 %     54.2 %"""


def test_the_table_of_an_mlp():
    assert text_of(mlp()) == MLP


def test_the_table_of_a_cnn():
    assert text_of(cnn(), [100, 50]) == CNN


def test_a_tesla_brings_its_percentages():
    assert text_of(TESLA(mlp(), [25, 50, 75, 100])) == MLP
    assert text_of(TESLA(cnn(), [100, 50])) == CNN


def test_a_tesla_at_other_percentages():
    assert text_of(TESLA(mlp(), [100, 10]), (100, 75, 50, 25)) == MLP


def test_percentages_come_from_the_highest_and_the_share_is_of_it():
    text = text_of(mlp(), [20, 40])
    assert "Multiply-adds     40 %     20 %\n" in text
    assert "of 40 %        100.0 %   51.4 %\n" in text  # 18,680 of 36,360 multiply-adds


def test_ten_percentages_fit_a_line():
    lines = text_of(TESLA(mlp())).splitlines()
    assert max(map(len, lines)) == 103
    assert not [line for line in lines if line.endswith(" ")]


def test_print_is_the_default(capsys):
    summary(mlp())
    assert capsys.readouterr().out == MLP + "\n"


# The numbers.


def branches():
    """A nested model called twice, an operator, and a layer that is not needed at 50 %."""
    x = keras.Input((8, 8, 3))
    y = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(x)
    block = keras.Sequential(
        [keras.Input((8, 8, 8)), IDPConv2D(8, 3, padding="same", profile="linear", name="block")]
    )
    y = y + block(block(y))
    late = layers.Conv2D(8, 1, name="late")(x)
    y = IDPConv2D(4, 1, name="head")(layers.Concatenate()([y, late]))
    return keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(y)))


def ranges():
    """A first and a last layer for each range of percentages, channels first."""
    model = [
        keras.Input((3, 9, 9)),
        PerRange({p: layers.Conv2D(4, 3, data_format="channels_first") for p in (60, 100)}),
        IDPConv2D(4, 3, strides=2, data_format="channels_first"),
        layers.GlobalAveragePooling2D(data_format="channels_first"),
        PerRange({50: layers.Dense(2), 100: layers.Dense(2)}, name="last"),
    ]
    return keras.Sequential(model)


@pytest.mark.parametrize("model", [mlp, cnn, branches, ranges])
def test_totals_are_those_of_the_extracted_models(model):
    tesla = TESLA(model(), [100, 50])
    blocks = blocks_of(text_of(tesla))
    extracted = [tesla.at(100), tesla.at(50)]
    assert blocks["Multiply-adds"]["Total"] == [multiply_adds(m) for m in extracted]
    assert blocks["Parameters"]["Total"] == [m.count_params() for m in extracted]
    assert blocks["Bytes"]["Total"] == [4 * m.count_params() for m in extracted]  # float32
    for block in blocks.values():
        *rows, total, share = block.values()
        np.testing.assert_array_equal(np.sum(rows, axis=0), total)
        np.testing.assert_allclose(share, 100 * np.divide(total, total[0]), atol=0.05)  # one digit


def test_a_layer_called_twice_has_two_costs_and_one_set_of_weights():
    blocks = blocks_of(text_of(branches(), [100]))
    assert blocks["Multiply-adds"]["block"] == [2 * 8 * 8 * 9 * 8 * 8]
    assert blocks["Parameters"]["block"] == [9 * 8 * 8 + 8]


def test_a_layer_that_is_not_needed_costs_nothing_and_keeps_its_row():
    blocks = blocks_of(text_of(branches(), [100, 50]))
    assert blocks["Multiply-adds"]["late"] == [8 * 8 * 3 * 8, 0]
    assert blocks["Parameters"]["late"] == [3 * 8 + 8, 0]


def test_of_the_layers_for_ranges_only_the_running_one_counts():
    blocks = blocks_of(text_of(ranges(), [100, 50]))
    assert blocks["Multiply-adds"]["last"] == [8, 8]
    assert blocks["Parameters"]["last"] == [10, 10]


def test_layers_with_equal_names_have_a_row_each():
    def nested():
        return keras.Sequential([keras.Input((4,)), IDPDense(4, use_bias=False, name="same")])

    x = keras.Input((4,))
    text = text_of(keras.Model(x, nested()(nested()(x))), [100])
    # Two layers in two blocks: 16 multiply-adds, 16 parameters.
    assert len(re.findall(r"^same +16$", text, re.MULTILINE)) == 4


@pytest.mark.parametrize(
    ("dtype", "size"), [("float32", 4), ("mixed_float16", 4), ("bfloat16", 2), ("float16", 2)]
)
def test_bytes_are_those_of_the_weights_not_of_the_computation(dtype, size):
    model = keras.Sequential(
        [keras.Input((6,)), IDPDense(4, profile="linear", dtype=dtype, name="layer")]
    )
    blocks = blocks_of(text_of(model, [100, 50]))
    assert blocks["Bytes"]["layer"] == [size * (6 * 4 + 4), size * (3 * 4 + 4)]


def test_weights_that_are_in_no_dot_product_count():
    x = keras.Input((5,), dtype="int32")
    y = layers.LSTM(4, name="recurrent")(layers.Embedding(7, 6, name="table")(x))
    blocks = blocks_of(text_of(keras.Model(x, IDPDense(2)(y)), [100, 50]))
    assert blocks["Parameters"]["table"] == [42, 42]
    assert blocks["Parameters"]["recurrent"] == [176, 176]
    # Four gates, each of 6 inputs and 4 states, at 5 steps.
    assert blocks["Multiply-adds"]["recurrent"] == [5 * 4 * 4 * (6 + 4)] * 2


class Square(layers.Layer):
    """May multiply as much as it likes."""

    def call(self, x):
        return keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))

    def compute_mask(self, inputs, previous_mask=None):
        return previous_mask  # a layer that decides on masks is not opened


def test_operations_have_a_row_and_layers_of_the_user_are_not_counted():
    x = keras.Input((4, 6))
    y = Square(name="own")(layers.Dense(8, name="first")(x))
    y = keras.ops.matmul(y, y)
    model = keras.Model(x, IDPDense(2, name="last")(layers.Dense(8)(y)))
    text = text_of(model, [100, 50])
    assert re.search(r"^own +not counted +not counted$", text, re.MULTILINE)
    blocks = blocks_of(text.replace("not counted", "0"))
    (of_operation,) = (v for k, v in blocks["Multiply-adds"].items() if k.startswith("matmul"))
    assert of_operation == [4 * 4 * 4] * 2
    total = 4 * 6 * 8 + 4 * 4 * 4 + 4 * 4 * 8 + 4 * 8 * 2
    assert blocks["Multiply-adds"]["Total"][0] == total == multiply_adds(model)


def test_a_nested_model_is_counted_at_the_sizes_that_it_is_called_on():
    """Its own input leaves them open."""
    inner_input = keras.Input((None, None, 3))
    inner = keras.Model(inner_input, layers.Conv2D(4, 1, name="inner")(inner_input))
    x = keras.Input((5, 7, 3))
    y = IDPConv2D(2, 1, name="last")(inner(x))
    blocks = blocks_of(text_of(keras.Model(x, y), [100, 50]))
    assert blocks["Multiply-adds"]["inner"] == [5 * 7 * 3 * 4, 5 * 7 * 3 * 2]


def test_the_selection_before_a_masked_layer_is_left_out():
    """A stock layer that passes on the mask; `TESLA.predict` takes a slice instead."""
    x = keras.Input((5,), dtype="int32")
    y = layers.LayerNormalization()(layers.Embedding(7, 6, mask_zero=True)(x))
    y = IDPDense(2, name="layer")(y)
    tesla = TESLA(keras.Model(x, y), [100, 50])
    blocks = blocks_of(text_of(tesla))
    assert blocks["Multiply-adds"]["layer"] == [5 * 6 * 2, 5 * 3 * 2]
    assert blocks["Multiply-adds"]["Total"][1] == multiply_adds(tesla.at(50)) - 5 * 6 * 3


def test_nothing_is_done_to_the_model():
    model = mlp()
    before = [w.copy() for w in model.get_weights()]
    summary(model, print_fn=lambda text: None)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert model.get_layer("middle").output is model.layers[1].output  # one node still


# Bad input.


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.layer = IDPDense(3)

    def call(self, x):
        return self.layer(x)


@pytest.mark.parametrize("bad", [Subclassed(), None, "model.keras", layers.Dense(3)])
def test_only_models_whose_graph_can_be_read(bad):
    with pytest.raises(ValueError, match=r"must be a Functional or Sequential one.* Received: "):
        summary(bad)


def test_a_model_that_is_not_built():
    with pytest.raises(ValueError, match=r"is not built, so its shapes are unknown"):
        summary(keras.Sequential([IDPDense(3)]))


def test_a_model_without_incomplete_layers():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="plain")])
    with pytest.raises(ValueError, match=r"no incomplete layer.* \['plain'\]"):
        summary(model)


@pytest.mark.parametrize(
    ("percentages", "message"),
    [
        ([0], r"from 1 to 100\. Received: 0"),
        ([101], r"from 1 to 100\. Received: 101"),
        ([0.5], r"must be an integer from 1 to 100\. Received: 0\.5"),
        ([50, 50], r"must be distinct\. Received: \[50, 50\]"),
        ([], r"at least one percentage\. Received none"),
        (50, r"must be an iterable of integers.* Received: 50"),
        ("100", r"must be an iterable of integers.* Received: '100'"),
    ],
)
def test_bad_percentages(percentages, message):
    with pytest.raises(ValueError, match=message):
        summary(mlp(), percentages)


def test_a_percentage_without_statistics():
    message = r"'norm' has statistics for \[100, 50\] percent\. Received: 30"
    for model in (cnn(), TESLA(cnn(), [100, 50])):
        with pytest.raises(ValueError, match=message):
            summary(model, [100, 30])


def test_an_unknown_dimension():
    model = keras.Sequential([keras.Input((None, 8, 3)), IDPConv2D(4, 3, name="open")])
    with pytest.raises(ValueError, match=r"of layer 'open' depend on a dimension .* full shape"):
        summary(model)
