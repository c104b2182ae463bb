"""Data sets: sizes, ranges, and splits that do not overlap."""

import numpy as np
import pytest

from keras_tesla import data


def test_digits_need_no_network_and_splits_do_not_overlap():
    digits = data.load("digits", validation_size=0.1)
    assert digits.classes == 10
    sizes = len(digits.train), len(digits.validation), len(digits.test)
    assert sum(sizes) == 1797
    assert sizes[2] == 359
    assert sizes[1] == 144
    for split in (digits.train, digits.validation, digits.test):
        assert split.x.shape[1:] == (8, 8, 1)
        assert split.x.dtype == np.float32
        assert (split.x.min(), split.x.max()) == (0, 1)
        assert set(split.y) == set(range(10))
    rows = [
        {image.tobytes() for image in split.x}
        for split in (digits.train, digits.validation, digits.test)
    ]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]


def test_a_seed_makes_the_same_splits_and_another_one_others():
    first, again, other = (data.load("digits", seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first.validation.x, again.validation.x)
    assert not np.array_equal(first.validation.y, other.validation.y)


def test_batches_are_endless_and_the_same_for_the_same_seed():
    split = data.load("digits").train
    first, again, other = (
        list(data.batches(split, 500, seed=s).take(6).as_numpy_iterator()) for s in (0, 0, 1)
    )
    assert all(x.shape == (500, 8, 8, 1) for x, _ in first)  # 3000 of 1294 images
    for (x, y), (x_again, y_again) in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, x_again)
        np.testing.assert_array_equal(y, y_again)
    assert not np.array_equal(first[0][1], other[0][1])


def test_each_image_keeps_its_label_and_comes_once_a_pass():
    split = data.load("digits").train
    (x, y) = next(data.batches(split, len(split), flat=True).as_numpy_iterator())
    rows = sorted(zip(split.x.reshape(len(split), -1).tolist(), split.y, strict=True))
    assert sorted(zip(x.tolist(), y, strict=True)) == rows


def test_augmented_images_are_crops_of_the_padded_one_or_of_its_mirror():
    """The oracle: all 9 x 9 shifts of an image, and their mirrors."""
    image = np.random.default_rng(0).random((12, 12, 3), "float32")
    split = data.Split(image[None], np.array([7]))
    padded = np.pad(image, [(4, 4), (4, 4), (0, 0)], "reflect")
    crops = [padded[i : i + 12, j : j + 12] for i in range(9) for j in range(9)]
    expected = {c.tobytes() for crop in crops for c in (crop, np.ascontiguousarray(crop[:, ::-1]))}
    x, y = next(data.batches(split, 400, augment=True).as_numpy_iterator())
    seen = {crop.tobytes() for crop in x}
    assert seen <= expected
    assert len(seen) > 100  # of 162; 400 draws leave out a few
    assert set(y) == {7}


@pytest.mark.parametrize("size", [4, 6])
def test_resized_images_are_averages_without_aliasing(size):
    """A slope keeps its values inside; single pixels of noise are averaged, not picked."""
    slope = np.tile(np.linspace(0, 1, 12, dtype="float32")[:, None, None], (1, 12, 3))
    noise = np.random.default_rng(0).integers(0, 2, (12, 12, 3)).astype("float32")
    split = data.Split(np.stack([slope, noise]), np.array([3, 4]))
    small = data.resized(split, size)
    assert small.x.shape == (2, size, size, 3)
    centers = (np.arange(size) + 0.5) * 12 / size - 0.5  # of the new pixels, in old ones
    # The border has a shorter kernel, so only what is inside lies on the slope; float32.
    np.testing.assert_allclose(small.x[0, 1:-1, 2, 0], centers[1:-1] / 11, rtol=1e-5)
    assert small.x[1].std() < 0.6 * noise.std()
    x, y = next(data.batches(split, 2, size=size).as_numpy_iterator())
    np.testing.assert_array_equal(x[np.argsort(y)], small.x)
    assert data.resized(split, 12) is split


def test_other_names_and_shares_are_refused():
    with pytest.raises(ValueError, match="must be one of"):
        data.load("imagenet")
    for share in (0, 1, -0.5):
        with pytest.raises(ValueError, match="between 0 and 1"):
            data.load("digits", validation_size=share)


def test_tfds_sets_come_from_the_given_folder(monkeypatch):
    """The real sets need a download, so TFDS itself is replaced; what is checked is our side."""
    import types

    tfds = pytest.importorskip("tensorflow_datasets")
    arrays = {
        "train": (np.full((20, 4, 4, 1), 255, "uint8"), np.arange(20) % 10),
        "test": (np.zeros((5, 4, 4, 1), "uint8"), np.arange(5)),
    }
    info = types.SimpleNamespace(features={"label": types.SimpleNamespace(num_classes=10)})
    asked = {}

    def load(name, **kwargs):
        asked.update(kwargs, name=name)
        return arrays, info

    monkeypatch.setattr(tfds, "load", load)
    monkeypatch.setattr(tfds, "as_numpy", lambda value: value)
    mnist = data.load("mnist", validation_size=0.25, data_dir="somewhere")
    assert (asked["name"], asked["data_dir"]) == ("mnist", "somewhere")
    assert (len(mnist.train), len(mnist.validation), len(mnist.test)) == (15, 5, 5)
    assert mnist.train.x.max() == 1.0
