"""The picture of class activation maps: its panels, its words, its errors."""

import pathlib

import keras
import matplotlib.image
import matplotlib.text
import numpy as np
import pytest
from keras import layers

from keras_tesla import TESLA
from keras_tesla.analysis import activation_gallery as gallery
from keras_tesla.analysis import class_activation_maps
from keras_tesla.layers import IDPBatchNormalization, IDPConv2D

PERCENTAGES = [100, 50, 25]


def tesla_of(channels=3, percentages=PERCENTAGES):
    model = keras.Sequential(
        [
            keras.Input((16, 16, channels)),
            layers.Conv2D(8, 3, activation="relu"),
            IDPConv2D(8, 3),
            IDPBatchNormalization(percentages),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )
    return TESLA(model, percentages)


def images_of(*shape):
    return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")


@pytest.fixture
def words(monkeypatch):
    """What is written on the next picture: [(text, color)]."""
    seen = {}
    draw = matplotlib.text.Text.draw

    def recorded(self, *args, **kwargs):
        if self.get_text():
            seen[id(self)] = (self.get_text(), self.get_color())
        return draw(self, *args, **kwargs)

    monkeypatch.setattr(matplotlib.text.Text, "draw", recorded)
    return lambda: list(seen.values())


def panels_of(path):
    """The pixels of each panel, found by the white between them: a list of rows."""
    pixels = matplotlib.image.imread(path)[..., :3]
    # A panel has a black frame: a long run of dark pixels; letters have none.
    dark = pixels.max(axis=-1) < 0.2
    lines = np.flatnonzero(dark.sum(axis=1) > 0.5 * pixels.shape[1])
    columns = np.flatnonzero(dark.sum(axis=0) > 0.5 * pixels.shape[0])
    edges = [_edges(lines), _edges(columns)]
    return [
        [pixels[top + 2 : bottom - 1, left + 2 : right - 1] for left, right in edges[1]]
        for top, bottom in edges[0]
    ]


def _edges(places):
    first = [p for p in places if p - 1 not in places]
    return list(zip(first[::2], first[1::2], strict=True))


@pytest.mark.parametrize(("count", "percentages"), [(1, [100]), (2, PERCENTAGES), (3, [50, 25])])
def test_a_row_for_each_image_and_a_column_for_each_percentage(tmp_path, count, percentages):
    path = gallery(tesla_of(), images_of(count, 16, 16, 3), percentages, tmp_path / "maps.png")
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    panels = panels_of(path)
    assert [len(row) for row in panels] == [1 + len(percentages)] * count
    for row in panels:
        for panel in row:
            assert min(panel.shape[:2]) > 100
            assert panel.std() > 0.05  # not blank
        for panel in row[1:]:
            assert np.abs(panel - row[0]).mean() > 0.05  # the map lies over the image
            # Half of the image still shows.
            assert np.corrcoef(panel.mean(axis=-1).ravel(), row[0].mean(axis=-1).ravel())[0, 1] > 0


def test_the_path_may_be_a_string(tmp_path):
    path = gallery(tesla_of(), images_of(1, 16, 16, 3), [100], str(tmp_path / "maps.png"))
    assert isinstance(path, pathlib.Path)
    assert path.exists()


def test_gray_images(tmp_path):
    path = gallery(tesla_of(1), images_of(1, 16, 16, 1), [100], tmp_path / "maps.png")
    ((image, _),) = panels_of(path)
    np.testing.assert_array_equal(image[..., 0], image[..., 2])


def test_images_of_channels_first_look_the_same(tmp_path):
    def tesla_in(data_format, shape):
        model = keras.Sequential(
            [
                keras.Input(shape),
                IDPConv2D(4, 3, data_format=data_format),
                layers.GlobalAveragePooling2D(data_format=data_format),
                layers.Dense(4),
            ]
        )
        return TESLA(model, [100])

    last, first = (
        tesla_in("channels_last", (16, 12, 3)),
        tesla_in("channels_first", (3, 16, 12)),
    )
    first.set_weights(last.get_weights())
    images = images_of(1, 16, 12, 3)
    pixels = [
        matplotlib.image.imread(gallery(tesla, x, [100], tmp_path / "maps.png"))
        for tesla, x in [(last, images), (first, np.moveaxis(images, -1, 1))]
    ]
    # float32 sums in another order may take the neighbouring color.
    np.testing.assert_allclose(*pixels, atol=0.02)


def test_predictions_are_green_where_right_and_red_where_wrong(tmp_path, words):
    tesla, images = tesla_of(), images_of(2, 16, 16, 3)
    predicted = {
        p: tesla.predict(images, percentage=p, verbose=0).argmax(axis=-1) for p in PERCENTAGES
    }
    labels = np.array([predicted[100][0], (predicted[100][1] + 1) % 4])
    names = ["cat", "dog", "bird", "frog"]
    gallery(tesla, images, PERCENTAGES, tmp_path / "maps.png", labels, names)
    written = words()
    for text in ("image", "100 %", "50 %", "25 %"):
        assert [w for w, _ in written].count(text) == 1  # over the first row only
    expected = [(names[label], "black") for label in labels] + [
        (names[predicted[p][i]], "green" if predicted[p][i] == labels[i] else "red")
        for i in range(2)
        for p in PERCENTAGES
    ]
    assert sorted(w for w in written if w[0] in names) == sorted(expected)
    assert {"green", "red"} <= {color for _, color in expected}


def test_without_labels_nothing_is_right_or_wrong(tmp_path, words):
    gallery(tesla_of(), images_of(1, 16, 16, 3), [100, 50], tmp_path / "maps.png")
    written = words()
    assert {color for _, color in written} == {"black"}
    assert len([w for w, _ in written if w in "0123"]) == 2


def recorded_maps(monkeypatch):
    calls = []

    def maps(model, images, classes, layer):
        calls.append(classes)
        return class_activation_maps(model, images, classes, layer)

    # The function has taken the module's place in `keras_tesla.analysis`.
    monkeypatch.setitem(gallery.__globals__, "class_activation_maps", maps)
    return calls


def test_all_maps_of_a_row_are_for_its_label(tmp_path, monkeypatch):
    calls = recorded_maps(monkeypatch)
    gallery(tesla_of(), images_of(2, 16, 16, 3), PERCENTAGES, tmp_path / "maps.png", [3, 1])
    assert calls == [[3, 1]] * 3


def test_or_for_the_class_predicted_at_the_highest_percentage(tmp_path, monkeypatch):
    calls, tesla, images = recorded_maps(monkeypatch), tesla_of(), images_of(8, 16, 16, 3)
    gallery(tesla, images, [25, 100], tmp_path / "maps.png")
    predicted = tesla.predict(images, percentage=100, verbose=0).argmax(axis=-1)
    assert calls[0] is None
    np.testing.assert_array_equal(calls[1], predicted)


# Bad input.


def assert_refused(tmp_path, message, tesla=None, images=None, percentages=(100,), **kwargs):
    tesla = tesla_of() if tesla is None else tesla
    images = images_of(2, 16, 16, 3) if images is None else images
    path = tmp_path / "maps.png"
    with pytest.raises(ValueError, match=message):
        gallery(tesla, images, percentages, path, **kwargs)
    assert not path.exists()


def test_only_a_tesla_has_percentages(tmp_path):
    message = r"takes a `keras_tesla.TESLA` model; wrap the network in one\. Received: <Seq"
    assert_refused(tmp_path, message, tesla=tesla_of().network)


@pytest.mark.parametrize(
    ("percentages", "message"),
    [
        ([], "at least one percentage"),
        ([100, 0], r"from 1 to 100\. Received: 0"),
        ([0.5], r"an integer from 1 to 100"),
        (100, "an iterable of integers"),
        ([100, 30], r"has statistics for \[100, 50, 25\] percent\. Received: 30"),
    ],
)
def test_bad_percentages(tmp_path, percentages, message):
    assert_refused(tmp_path, message, percentages=percentages)


def test_images_of_another_shape(tmp_path):
    message = r"\(None, 16, 16, 3\), at least one\. Received: shape \(2, 16, 16, 1\)"
    assert_refused(tmp_path, message, images=images_of(2, 16, 16, 1))


@pytest.mark.parametrize("labels", [[0], [0, 4], [0.0, 1.0], ["cat", "dog"]])
def test_bad_labels(tmp_path, labels):
    message = r"must be 2 integers from 0 to 3, one for each image\. Received: "
    assert_refused(tmp_path, message, labels=labels)


@pytest.mark.parametrize("names", [[], ["cat", "dog", "bird"]])
def test_too_few_class_names(tmp_path, names):
    message = r"`class_names` must be 4 names, one for each class\. Received: \["
    assert_refused(tmp_path, message, class_names=names)
