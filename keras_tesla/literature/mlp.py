"""The papers' multilayer perceptron."""

import keras

from keras_tesla.layers import IDPBatchNormalization, IDPDense
from keras_tesla.percentages import check_percentages

# Moving statistics are means over about the last 1,000 batches; the paper's have 28 examples.
_MOMENTUM = 0.999


def mlp(
    features=784,
    classes=10,
    hidden=100,
    profile="all_one",
    trainable_profile=False,
    private_percentages=None,
):
    """Returns the MLP of the IDP and TESLA papers, 784-100-100-10 with ReLU.

    The first and the last layer are complete; the one between them is incomplete on its inputs.

    With `private_percentages` there is a batch normalization before each ReLU, and each of these
    percentages has private numbers: coefficients of the middle layer's blocks of terms; statistics,
    a gain and a shift after that layer; and a bias of the logits.

    Args:
        features: Positive int, inputs of an example.
        classes: Positive int, outputs (logits).
        hidden: Positive int, width of both hidden layers.
        profile: Coefficients of the incomplete layer; see `keras_tesla.layers.IDPDense`.
        trainable_profile: Bool, whether they are trained.
        private_percentages: Iterable of distinct ints, 1..100, or None for the papers' network.

    Returns:
        A `keras.Sequential` model, input `(batch, features)`, output `(batch, classes)`.

    Raises:
        ValueError: For arguments that the layers refuse.

    Example:

    >>> mlp().count_params()
    89610
    >>> mlp(private_percentages=range(100, 0, -10)).count_params()
    94165

    Reference:
        McDanel, Teerapittayanon, Kung, 2017, https://arxiv.org/abs/1710.07830
    """
    if private_percentages is not None:
        return _private(features, classes, hidden, profile, trainable_profile, private_percentages)
    return keras.Sequential(
        [
            keras.Input((features,), name="image"),
            keras.layers.Dense(hidden, activation="relu", name="first"),
            IDPDense(
                hidden,
                activation="relu",
                profile=profile,
                trainable_profile=trainable_profile,
                name="middle",
            ),
            keras.layers.Dense(classes, name="logits"),
        ],
        name="mlp",
    )


def _private(features, classes, hidden, profile, trainable_profile, percentages):
    percentages = check_percentages(percentages)
    return keras.Sequential(
        [
            keras.Input((features,), name="image"),
            keras.layers.Dense(hidden, use_bias=False, name="first"),
            # What the first layer computes is the same at every percentage.
            keras.layers.BatchNormalization(momentum=_MOMENTUM, name="first_bn"),
            keras.layers.ReLU(name="first_relu"),
            IDPDense(
                hidden,
                use_bias=False,
                profile=profile,
                trainable_profile=trainable_profile,
                percentages=percentages,
                private_profile=True,
                name="middle",
            ),
            IDPBatchNormalization(
                percentages, private_affine=True, momentum=_MOMENTUM, name="middle_bn"
            ),
            keras.layers.ReLU(name="middle_relu"),
            IDPDense(
                classes, percentages=percentages, private_bias=True, complete=True, name="logits"
            ),
        ],
        name="mlp",
    )
