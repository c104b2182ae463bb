"""The papers' multilayer perceptron."""

import keras

from keras_tesla.layers import IDPDense


def mlp(features=784, classes=10, hidden=100, profile="all_one", trainable_profile=False):
    """Returns the MLP of the IDP and TESLA papers, 784-100-100-10 with ReLU.

    First and last layer are complete; the one between them is incomplete on its inputs.

    Args:
        features: Positive int, inputs of an example.
        classes: Positive int, outputs (logits).
        hidden: Positive int, width of both hidden layers.
        profile: Coefficients of the incomplete layer; see `keras_tesla.layers.IDPDense`.
        trainable_profile: Bool, whether they are trained.

    Returns:
        A `keras.Sequential` model, input `(batch, features)`, output `(batch, classes)`.

    Raises:
        ValueError: For arguments that Keras' layers refuse.

    Example:

    >>> mlp().count_params()
    89610

    Reference:
        McDanel, Teerapittayanon, Kung, 2017, https://arxiv.org/abs/1710.07830
    """
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
