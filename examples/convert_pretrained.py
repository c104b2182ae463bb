"""Makes a trained Keras model run at several percentages: convert, order, fine-tune, export.

    python examples/convert_pretrained.py --dataset=fashion_mnist --output_dir=out/converted
    python examples/convert_pretrained.py --model=mine.keras --dataset=cifar10

Without `--model` a small network of inverted residual blocks, like MobileNetV2, is trained first.
It is converted (`kt.to_idp`) once as it is and once with its channels ordered by importance
(`kt.order_channels`). Both are evaluated before any fine-tuning. The ordered one is fine-tuned at
all percentages with in-place distillation for a tenth of the epochs, in smaller batches and on
images without augmentation: so few epochs need many steps and do not overfit. `--from_scratch`
trains the same network at all percentages from the start, for comparison. The output directory
gets `results.json`, the models and the exported file. A killed run continues after the last model
that it saved.
"""

import json
import pathlib

import keras
from absl import app, flags, logging
from keras import layers

import keras_tesla as kt
from keras_tesla import data

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "dataset", "fashion_mnist", ["digits", "mnist", "fashion_mnist", "cifar10"], "What to learn."
)
flags.DEFINE_string("data_dir", None, "Folder of TFDS; default: that of TFDS_DATA_DIR.")
flags.DEFINE_string("model", None, "A trained .keras file that returns logits; default: train one.")
flags.DEFINE_float("width", 1.0, "Factor for all numbers of filters of the network trained here.")
flags.DEFINE_list("percentages", [100, 75, 50, 25], "The percentages to train.")
flags.DEFINE_integer("epochs", 20, "Epochs of the first training.")
flags.DEFINE_integer("tune_epochs", None, "Epochs at all percentages; default: a tenth as many.")
flags.DEFINE_integer("steps_per_epoch", None, "Batches per epoch; default: one pass of the images.")
flags.DEFINE_integer("batch_size", 128, "Images per batch of a training from the start.")
flags.DEFINE_integer("tune_batch_size", 32, "Images per batch at all percentages after conversion.")
flags.DEFINE_float("learning_rate", 3e-3, "Of Adam at the start; it falls to zero as a cosine.")
flags.DEFINE_bool("augment", True, "Whether training from the start shifts and mirrors images.")
flags.DEFINE_bool("tune_augment", False, "The same after the conversion.")
flags.DEFINE_bool("from_scratch", False, "Whether to also train at all percentages from the start.")
flags.DEFINE_integer("calibration_steps", 20, "Batches for the batch normalization statistics.")
flags.DEFINE_integer("seed", 0, "Of weights, order, augmentation and splits.")
flags.DEFINE_string("output_dir", "out/convert_pretrained", "Where the results go.")


def network(shape, classes, width=1.0) -> keras.Model:
    """Inverted residual blocks as in MobileNetV2, for small images; it returns logits."""

    def normalized(x, filters, kernel_size=1, strides=1, activation=True):
        x = layers.Conv2D(filters, kernel_size, strides, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        return layers.ReLU()(x) if activation else x

    def block(x, filters, strides, expansion=4):
        y = normalized(x, expansion * x.shape[-1])
        y = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)(y)
        y = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(y))
        y = normalized(y, filters, activation=False)
        return layers.Add()([x, y]) if x.shape == y.shape else y

    x = inputs = keras.Input(shape, name="image")
    x = normalized(x, round(16 * width), 3, strides=2)
    for filters, strides in ((24, 1), (24, 1), (40, 2), (40, 1), (64, 1)):
        x = block(x, round(filters * width), strides)
    x = layers.GlobalAveragePooling2D()(normalized(x, round(160 * width)))
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name="inverted_residuals")


def fit(model, dataset, epochs, batch_size, augment, folder):
    """Trains a plain or TESLA model, unless the folder has it already; returns it."""
    file = folder / "model.keras"
    if file.exists():
        return keras.saving.load_model(file)
    folder.mkdir(parents=True, exist_ok=True)
    steps = FLAGS.steps_per_epoch or max(1, len(dataset.train) // batch_size)
    model.compile(
        keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(FLAGS.learning_rate, epochs * steps)
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        data.batches(dataset.train, batch_size, FLAGS.seed, augment=augment),
        steps_per_epoch=steps,
        epochs=epochs,
        validation_data=(dataset.validation.x, dataset.validation.y),
        validation_batch_size=500,
        callbacks=[keras.callbacks.TerminateOnNaN()],
        verbose=2,
    )
    model.save(file)
    return model


def accuracies(tesla: kt.TESLA, dataset) -> dict[str, dict[str, float]]:
    """Returns {split: {percentage: accuracy 0..1}} of the validation and test split."""
    if not tesla.compiled:
        tesla.compile(
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
        )
    found = {}
    for name, split in (("validation", dataset.validation), ("test", dataset.test)):
        logs = tesla.evaluate(split.x, split.y, batch_size=500, verbose=0, return_dict=True)
        found[name] = {str(p): float(logs[f"p{p}_accuracy"]) for p in sorted(tesla.percentages)}
    return found


def calibrated(incomplete, percentages, dataset) -> kt.TESLA:
    """The network at all percentages, with measured statistics where it normalizes batches."""
    tesla = kt.TESLA(incomplete, percentages, distillation="in_place")
    if not any(isinstance(x, kt.layers.IDPBatchNormalization) for x in tesla.graph.layers):
        return tesla
    batches = data.batches(dataset.train, FLAGS.batch_size, FLAGS.seed)
    return kt.recalibrate(tesla, batches, percentages, steps=FLAGS.calibration_steps)


def check_folder(output):
    """Refuses a folder with the models of other flags: they would be taken for these."""
    flag_values = {f.name: f.value for f in FLAGS.get_key_flags_for_module(__name__)}
    written = json.dumps({k: v for k, v in flag_values.items() if not k.endswith("_dir")})
    file = output / "flags.json"
    if file.exists() and file.read_text() != written:
        raise app.UsageError(
            f"{output} has a run with other flags. Choose another --output_dir or remove it. "
            f"There: {file.read_text()} Now: {written}"
        )
    output.mkdir(parents=True, exist_ok=True)
    file.write_text(written)


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    output = pathlib.Path(FLAGS.output_dir)
    check_folder(output)
    dataset = data.load(FLAGS.dataset, seed=FLAGS.seed, data_dir=FLAGS.data_dir)
    from_start = FLAGS.epochs, FLAGS.batch_size, FLAGS.augment
    if FLAGS.model:
        plain = keras.saving.load_model(FLAGS.model)
    else:
        shape = dataset.train.x.shape[1:]
        plain = network(shape, dataset.classes, FLAGS.width)
        plain = fit(plain, dataset, *from_start, output / "plain")
    percentages = [int(p) for p in FLAGS.percentages]
    tune_epochs = FLAGS.tune_epochs or max(1, FLAGS.epochs // 10)

    incomplete = kt.to_idp(plain, percentages)
    print(incomplete.conversion_report)
    unordered = calibrated(incomplete, percentages, dataset)
    incomplete = kt.to_idp(kt.order_channels(plain), percentages)
    ordered = calibrated(incomplete, percentages, dataset)
    rows = {
        "converted": accuracies(unordered, dataset),
        "converted and ordered": accuracies(ordered, dataset),
    }
    tuning = tune_epochs, FLAGS.tune_batch_size, FLAGS.tune_augment
    tuned = fit(ordered, dataset, *tuning, output / "tuned")
    rows["fine-tuned"] = accuracies(tuned, dataset)
    if FLAGS.from_scratch:
        keras.utils.set_random_seed(FLAGS.seed)
        fresh = network(dataset.train.x.shape[1:], dataset.classes, FLAGS.width)
        fresh = kt.to_idp(fresh, percentages)
        scratch = kt.TESLA(fresh, percentages, distillation="in_place")
        scratch = fit(scratch, dataset, *from_start, output / "from_scratch")
        rows["from scratch"] = accuracies(scratch, dataset)

    kt.summary(tuned)
    results = {
        "flags": {
            flag.name: flag.value
            for flag in FLAGS.get_key_flags_for_module(__name__)
            if flag.name != "model" and not flag.name.endswith("_dir")
        },
        "epochs": {"plain": FLAGS.epochs, "fine-tuned": tune_epochs},
        "multiply_adds": {str(p): kt.analysis.multiply_adds(tuned.at(p)) for p in percentages},
        "accuracy": rows,
    }
    if keras.backend.backend() == "tensorflow":
        bundle = kt.tflite.export(
            tuned,
            output / "tflite",
            mode="signatures",
            overwrite=True,
            validation_data=(dataset.test.x, dataset.test.y),
        )
        results["tflite_accuracy"] = {str(e.percentage): e.accuracy for e in bundle.entries}
        results["tflite_bytes"] = sum(
            f.stat().st_size for f in (output / "tflite").glob("*.tflite")
        )
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print("test accuracy, %".ljust(24) + "".join(f"{p:>8} %" for p in percentages))
    for name, found in rows.items():
        figures = [100 * found["test"][str(p)] for p in percentages]
        print(name.ljust(24) + "".join(f"{x:>10.2f}" for x in figures))
    print(f"written to {output}")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
