"""Image data sets as arrays: those of TFDS, and the digits of scikit-learn."""

import dataclasses

import numpy as np

from keras_tesla import extras

_TFDS = ("mnist", "fashion_mnist", "cifar10", "cifar100")
NAMES = ("digits", *_TFDS)


@dataclasses.dataclass(frozen=True)
class Split:
    """Images and labels.

    Args:
        x: float32 array `(examples, height, width, channels)`, 0..1.
        y: int64 array `(examples,)`, or targets `(examples, ...)` made from it.
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self):
        return len(self.x)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Three splits of a data set.

    Args:
        train: For the weights.
        validation: For every decision: early stopping, choice of a method.
        test: For the number that is reported; read once.
        classes: Number of classes.
    """

    train: Split
    validation: Split
    test: Split
    classes: int


def load(name: str, validation_size: float = 0.1, seed: int = 0, data_dir=None) -> Dataset:
    """Loads a data set; the validation split is taken from the training images.

    Args:
        name: `"digits"` (8x8 grey, in scikit-learn, no download), `"mnist"`, `"fashion_mnist"`,
            `"cifar10"` or `"cifar100"` (from TFDS, which downloads them if they are not prepared).
        validation_size: Float, 0..1, the share of the training images.
        seed: Int, decides which images are in which split.
        data_dir: TFDS's folder. Default: that of the environment variable `TFDS_DATA_DIR`.

    Raises:
        ImportError: If scikit-learn or TFDS is needed and not installed.
        ValueError: If the name is none of these, or the share is not between 0 and 1.
    """
    if not 0 < validation_size < 1:
        raise ValueError(f"`validation_size` must be between 0 and 1. Received: {validation_size}")
    shuffled = np.random.default_rng(seed).permutation
    if name == "digits":
        digits = extras.load("sklearn.datasets", "demo").load_digits()
        everything = Split(_scaled(digits.images[..., None], 16), digits.target.astype("int64"))
        test, train = _cut(everything, shuffled(len(everything)), 0.2)
        classes = 10
    elif name in _TFDS:
        tfds = extras.load("tensorflow_datasets", "examples")
        splits, info = tfds.load(
            name, batch_size=-1, data_dir=data_dir, as_supervised=True, with_info=True
        )
        arrays = {key: tfds.as_numpy(value) for key, value in splits.items()}
        train, test = (
            Split(_scaled(x, 255), y.astype("int64")) for x, y in (arrays["train"], arrays["test"])
        )
        classes = info.features["label"].num_classes
    else:
        raise ValueError(f"The data set must be one of {NAMES}. Received: {name!r}")
    validation, train = _cut(train, shuffled(len(train)), validation_size)
    return Dataset(train, validation, test, classes)


def resized(split: Split, size: int) -> Split:
    """Returns the split with images of `size` x `size` pixels, without aliasing."""
    import tensorflow as tf

    if split.x.shape[1:3] == (size, size):
        return split
    return Split(tf.image.resize(split.x, (size, size), antialias=True).numpy(), split.y)


def batches(
    split: Split,
    batch_size: int,
    seed: int = 0,
    augment: bool = False,
    flat: bool = False,
    size: int | None = None,
):
    """Returns an endless shuffled stream of batches, the same for the same seed.

    Args:
        split: What to read.
        batch_size: Int, examples of a batch.
        seed: Int, of the order and the augmentation.
        augment: Bool, whether images are shifted by up to 4 pixels (the border is reflected) and
            half of them mirrored.
        flat: Bool, whether an image becomes one row of numbers.
        size: Int, height and width that images are resized to after the augmentation. Default: no
            resizing.

    Returns:
        A `tf.data.Dataset` of `(x, y)`; TensorFlow reads the data on JAX and PyTorch too.
    """
    import tensorflow as tf

    height, width, channels = split.x.shape[1:]

    def augmented(i, example):
        x, y = example
        seeds = tf.stack([tf.constant(seed, tf.int64), i])
        x = tf.pad(x, [[4, 4], [4, 4], [0, 0]], "REFLECT")
        x = tf.image.stateless_random_crop(x, (height, width, channels), seeds)
        return tf.image.stateless_random_flip_left_right(x, seeds), y

    x = split.x.reshape(len(split), -1) if flat else split.x
    stream = tf.data.Dataset.from_tensor_slices((x, split.y)).shuffle(len(split), seed=seed)
    stream = stream.repeat()
    if augment:
        stream = stream.enumerate().map(augmented, tf.data.AUTOTUNE)
    stream = stream.batch(batch_size)
    if size is not None and (height, width) != (size, size):
        stream = stream.map(
            lambda x, y: (tf.image.resize(x, (size, size), antialias=True), y), tf.data.AUTOTUNE
        )
    return stream.prefetch(tf.data.AUTOTUNE)


def _scaled(images, highest):
    return (np.asarray(images) / highest).astype("float32")


def _cut(split, order, share):
    size = max(1, round(share * len(split)))
    return tuple(Split(split.x[i], split.y[i]) for i in (order[:size], order[size:]))
