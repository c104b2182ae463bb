"""Which inputs a file is compared on, and which its ranges are measured on."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tesla.tflite import examples
from keras_tesla.tflite.examples import InputSpec
from keras_tesla.tflite.settings import ConversionSettings

IMAGE, IDS = InputSpec("image", (2, 2), "float32"), InputSpec("ids", (3,), "int32")


def images(count):
    return np.arange(count * 4, dtype="float64").reshape(count, 2, 2)


def test_without_data_the_inputs_are_random_and_the_same_every_time():
    chosen = examples.choose([IMAGE, IDS], ConversionSettings())
    again = examples.choose([IMAGE, IDS], ConversionSettings())
    assert chosen.representative is None
    assert {name: (x.shape, x.dtype) for name, x in chosen.inputs.items()} == {
        "image": ((16, 2, 2), "float32"),
        "ids": ((16, 3), "int32"),
    }
    assert set(np.unique(chosen.inputs["ids"])) == {0, 1}
    for name, x in chosen.inputs.items():
        np.testing.assert_array_equal(again.inputs[name], x)


@pytest.mark.parametrize(("batch_size", "count"), [(1, 16), (3, 15), (16, 16), (20, 20)])
def test_random_inputs_fill_batches(batch_size, count):
    chosen = examples.choose([IMAGE], ConversionSettings(batch_size=batch_size))
    assert len(chosen.inputs["image"]) == count


def test_representative_data_come_in_batches_and_their_first_are_compared_on():
    settings = ConversionSettings(quantization="int8", representative_data=images(23), batch_size=2)
    chosen = examples.choose([IMAGE], settings)
    assert [batch["image"].shape for batch in chosen.representative] == [(2, 2, 2)] * 11
    np.testing.assert_array_equal(
        np.concatenate([batch["image"] for batch in chosen.representative]), images(22)
    )
    np.testing.assert_array_equal(chosen.inputs["image"], images(16))


def test_inputs_of_the_user_come_first():
    settings = ConversionSettings(
        quantization="int8", representative_data={"image": images(20)}, inputs=images(5) + 1
    )
    chosen = examples.choose([IMAGE], settings)
    assert len(chosen.representative) == 20
    np.testing.assert_array_equal(chosen.inputs["image"], images(5) + 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (images(3), "`x` must be a dict with an array for each of ['image', 'ids']. Received: nd"),
        ({"image": images(3)}, "an array for each of ['image', 'ids']. Received: ['image']"),
        ({"image": images(3), 7: 1}, "Received: ['7', 'image']"),
        (
            {"image": images(3), "ids": np.zeros((3, 4))},
            "examples of shape (3,). Received an array",
        ),
        ({"image": images(1), "ids": np.zeros((2, 3))}, "at least 2 examples of shape (2, 2)"),
        ({"image": 5, "ids": np.zeros((2, 3))}, "Received an array of shape ()"),
        ({"image": images(4), "ids": np.zeros((2, 3))}, "equally many examples for each input"),
    ],
)
def test_data_that_do_not_fit_are_refused(given, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        examples.checked("x", given, [IMAGE, IDS], batch_size=2)
    assert message in str(error.value)


def test_an_unknown_dimension_is_refused():
    with pytest.raises(ValueError, match="'sound'.*every dimension but the batch"):
        InputSpec("sound", (None, 4), "float32")


class _Batches(keras.utils.PyDataset):
    def __init__(self, count=4):
        super().__init__()
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, place):
        return images(8)[2 * place : 2 * place + 2], np.zeros(2)


class _Loader:
    """As torch's `DataLoader`: it makes lists, and can be read again."""

    def __iter__(self):
        return iter([[images(8)[:5], np.zeros(5)], [images(8)[5:], np.zeros(3)]])


def _stream():
    for place in range(8):
        yield [images(8)[place : place + 1]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: _stream,
        lambda: _stream(),
        lambda: _Batches(),
        lambda: _Loader(),
        lambda: tf.data.Dataset.from_tensor_slices(images(8)).batch(3),
        lambda: tf.data.Dataset.from_tensor_slices((images(8), range(8))).batch(3),
        lambda: iter([{"image": images(8)}]),
    ],
)
def test_a_stream_of_batches_is_read_as_one_array(make):
    arrays = examples.checked("x", make(), [IMAGE], 2)
    np.testing.assert_array_equal(arrays["image"], images(8))


def test_a_batch_of_several_inputs_is_a_list_a_dict_or_a_tuple():
    ids = np.zeros((4, 3), "int32")
    by_name = {"image": images(4), "ids": ids}
    for batch in ([images(4), ids], by_name, (images(4), ids), (by_name, np.zeros(4))):
        arrays = examples.checked("x", iter([batch]), [IMAGE, IDS], 1)
        np.testing.assert_array_equal(arrays["image"], images(4))


def test_an_npz_file_holds_the_arrays_of_the_inputs(tmp_path):
    np.savez(tmp_path / "x.npz", image=images(3))
    with np.load(tmp_path / "x.npz") as file:
        arrays = examples.checked("x", file, [IMAGE], 1)
    np.testing.assert_array_equal(arrays["image"], images(3))


def test_a_stream_without_a_batch_or_of_other_inputs_is_refused():
    with pytest.raises(ValueError, match="`x` must hold at least one batch"):
        examples.checked("x", iter([]), [IMAGE], 1)
    with pytest.raises(ValueError, match="`x` must hold at least one batch"):
        examples.checked("x", _Batches(0), [IMAGE], 1)
    with pytest.raises(ValueError, match=r"Each batch of `x` must be a list or dict"):
        examples.checked("x", iter([[images(1), images(1)]]), [IMAGE], 1)


def test_an_endless_stream_ends():
    endless = itertools.repeat([images(1)])
    assert len(examples.checked("x", endless, [IMAGE], 1)["image"]) == 1024
