"""A picture of what a model looks at, at each percentage."""

import pathlib

import numpy as np
from keras import ops

from keras_tesla import extras
from keras_tesla.analysis.activation_maps import class_activation_maps
from keras_tesla.percentages import check_percentages
from keras_tesla.training.tesla import TESLA


def activation_gallery(
    tesla, images, percentages, path, labels=None, class_names=None, layer=None
) -> pathlib.Path:
    """Draws class activation maps over images, a row for each image.

    The first column shows the image, the others the map at each percentage laid over it. All maps
    of a row are for one class: the image's label or, without labels, the class predicted at the
    highest of the percentages. Under each map stands the class predicted there, green if it is the
    label and red if not.

    Args:
        tesla: A `TESLA` whose network `class_activation_maps` takes.
        images: Array `(n, height, width, channels)` or, for a network of channels first,
            `(n, channels, height, width)`. Three channels are shown as red, green and blue, any
            other number as their mean.
        percentages: Iterable of distinct ints, 1..100; the highest comes first.
        path: Where the PNG goes.
        labels: Integer array `(n,)`: the true classes.
        class_names: Sequence of strings, one for each class. Default: the numbers.
        layer: Name of the layer whose feature map is used; see `class_activation_maps`.

    Returns:
        The path.

    Raises:
        ValueError: If `tesla` is not a `TESLA` model, a percentage is invalid, `class_names` does
            not have one name for each class, or `class_activation_maps` or `TESLA.at` refuses its
            input.

    Example:

    ```python
    tesla.fit(x, y)
    kt.analysis.activation_gallery(tesla, x[:5], [100, 50, 30], "maps.png", labels=y[:5])
    ```
    """
    if not isinstance(tesla, TESLA):
        raise ValueError(
            "`activation_gallery` takes a `keras_tesla.TESLA` model; wrap the network in one. "
            f"Received: {tesla!r}"
        )
    percentages = check_percentages(percentages)
    classes, columns = labels, []
    for percentage in percentages:
        model = tesla.at(percentage)
        maps = class_activation_maps(model, images, classes, layer)
        scores = ops.convert_to_numpy(ops.cast(model(ops.convert_to_tensor(images)), "float32"))
        predicted = scores.argmax(axis=-1)
        classes = predicted if classes is None else classes
        columns.append((percentage, maps, predicted))
    names = [str(c) for c in range(scores.shape[-1])] if class_names is None else class_names
    if len(names) != scores.shape[-1]:
        raise ValueError(
            f"`class_names` must be {scores.shape[-1]} names, one for each class. "
            f"Received: {class_names!r}"
        )
    _draw(_shown(ops.convert_to_numpy(images), maps.shape), columns, labels, names, path)
    return pathlib.Path(path)


def _shown(images, maps_shape):
    """Returns images (n, height, width, 3) of values 0..1, the darkest value of each at 0."""
    images = images.astype("float32")
    if images.shape[1:3] != maps_shape[1:]:  # channels first
        images = np.moveaxis(images, 1, -1)
    if images.shape[-1] != 3:
        images = images.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
    images = images - images.min(axis=(1, 2, 3), keepdims=True)
    largest = images.max(axis=(1, 2, 3), keepdims=True)
    return images / np.where(largest > 0, largest, 1)


def _draw(images, columns, labels, names, path):
    agg = extras.load("matplotlib.backends.backend_agg", "demo")
    figures = extras.load("matplotlib.figure", "demo")

    size = (1.5 * (1 + len(columns)), 1.7 * len(images) + 0.3)
    figure = figures.Figure(figsize=size, layout="constrained")
    agg.FigureCanvasAgg(figure)
    axes = figure.subplots(len(images), 1 + len(columns), squeeze=False)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
    for title, panel in zip(["image", *(f"{p} %" for p, *_ in columns)], axes[0], strict=True):
        panel.set_title(title)
    for row, image in enumerate(images):
        for panel in axes[row]:
            panel.imshow(image)
        if labels is not None:
            axes[row, 0].set_xlabel(names[labels[row]])
        for (_, maps, predicted), panel in zip(columns, axes[row, 1:], strict=True):
            panel.imshow(maps[row], cmap="jet", alpha=0.5, vmin=0, vmax=1)
            color = "black"
            if labels is not None:
                color = "green" if predicted[row] == labels[row] else "red"
            panel.set_xlabel(names[predicted[row]], color=color)
    figure.savefig(path, dpi=120)
