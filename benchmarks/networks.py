"""The networks that `one_file.py` measures; as a script, trains the CNN on CIFAR-10.

`mlp` is 784-512-512-10. `cnn` has 3x3 convolutions 64, 64, 128, 128, 256, 256, a pool after each
pair, global pooling and Dense 10, on 32x32x3. `cnn_bn` is the same with batch normalization after
every convolution, statistics for each percentage.

    python benchmarks/networks.py --output=cnn.keras --steps=4000
"""

import keras
import numpy as np
from absl import app, flags, logging

import keras_tesla as kt

PERCENTAGES = tuple(range(100, 0, -10))
_WIDTHS = (64, 64, 128, 128, 256, 256)


def mlp() -> kt.TESLA:
    layers = [
        keras.Input((784,), name="image"),
        keras.layers.Dense(512, activation="relu"),
        kt.layers.IDPDense(512, activation="relu"),
        kt.layers.IDPDense(10, name="logits"),
    ]
    return _untrained(keras.Sequential(layers, name="mlp"))


def cnn(batch_norm: bool = False) -> kt.TESLA:
    x = inputs = keras.Input((32, 32, 3), name="image")
    for number, width in enumerate(_WIDTHS):
        convolution = kt.layers.IDPConv2D if number else keras.layers.Conv2D
        x = convolution(width, 3, padding="same", kernel_initializer="he_normal")(x)
        if batch_norm:
            x = kt.layers.IDPBatchNormalization(PERCENTAGES)(x)
        x = keras.layers.ReLU()(x)
        if number % 2:
            x = keras.layers.MaxPooling2D()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = kt.layers.IDPDense(10, name="logits")(x)
    return _untrained(keras.Model(inputs, outputs, name="cnn_bn" if batch_norm else "cnn"))


def _untrained(model):
    """Biases and statistics of a network that was trained are not zeros and ones."""
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.name.startswith(("gamma", "moving_variance")):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif weight.name.startswith(("beta", "moving_mean", "bias")):
            weight.assign(random.normal(0, 0.1, weight.shape))
    return kt.TESLA(model, PERCENTAGES)


def train(tesla: kt.TESLA, split: kt.data.Split, steps: int, batch_size: int, seed: int):
    """Trains all percentages together with Adam and a cosine schedule."""
    random = np.random.default_rng(seed)
    order = np.concatenate(
        [random.permutation(len(split)) for _ in range(-(-steps * batch_size // len(split)))]
    )[: steps * batch_size]
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    tesla.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    tesla.fit(split.x[order], split.y[order], batch_size=batch_size, shuffle=False)


def main(_):
    flag = flags.FLAGS
    keras.utils.set_random_seed(flag.seed)
    data = kt.data.load("cifar10", seed=flag.seed, data_dir=flag.data_dir)
    tesla = cnn()
    train(tesla, data.train, flag.steps, flag.batch_size, flag.seed)
    tesla.save(flag.output)
    print(tesla.evaluate(data.validation.x, data.validation.y, verbose=0, return_dict=True))


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "The .keras file to write.", required=True)
    flags.DEFINE_string("data_dir", None, "Folder of TFDS; default: that of TFDS_DATA_DIR.")
    flags.DEFINE_integer("steps", 4000, "Training steps.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 32, "Images a step.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of weights and order.")
    logging.set_verbosity(logging.WARNING)
    app.run(main)
