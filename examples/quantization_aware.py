"""Fine-tunes a TESLA model to run in int8, and exports it without representative data.

    python examples/mnist_mlp.py --dataset=mnist --output_dir=out/mnist
    python examples/quantization_aware.py --model=out/mnist/tesla.keras --dataset=mnist

The copy that `kt.quantization_aware` makes computes as int8 inference will. It is trained for a few
epochs at all percentages, each of which uses slices of one set of int8 values. The output directory
gets `results.json`, the trained copy `aware.keras` and `tflite/model.tflite`, a pure int8 file with
a signature for each percentage. `--compare` also trains the float32 model for as many more epochs,
and then quantizes it with representative data.
"""

import json
import pathlib

import keras
from absl import app, flags, logging

import keras_tesla as kt
from keras_tesla import data

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "dataset", "digits", ["digits", "mnist", "fashion_mnist", "cifar10"], "What to learn."
)
flags.DEFINE_string("data_dir", None, "Folder of TFDS; default: that of TFDS_DATA_DIR.")
flags.DEFINE_string("model", None, "A trained TESLA model, a .keras file; it returns logits.")
flags.DEFINE_integer("epochs", 5, "Epochs of training in int8.")
flags.DEFINE_integer("steps_per_epoch", None, "Batches per epoch; default: one pass of the images.")
flags.DEFINE_integer("batch_size", 128, "Images per batch.")
flags.DEFINE_float("learning_rate", 3e-4, "Of Adam at the start; it falls to zero as a cosine.")
flags.DEFINE_bool("augment", False, "Whether images are shifted and mirrored.")
flags.DEFINE_bool("compare", False, "Whether to train the float32 model on and quantize it, too.")
flags.DEFINE_integer("seed", 0, "Of the order, augmentation and splits.")
flags.DEFINE_string("output_dir", "out/quantization_aware", "Where the results go.")
flags.mark_flag_as_required("model")


def loaded(path) -> kt.TESLA:
    """Returns the TESLA model of a file."""
    tesla = keras.saving.load_model(path)
    if not isinstance(tesla, kt.TESLA):
        raise app.UsageError(
            f"--model must be a TESLA model, saved with `tesla.save`. Received: {path}, a "
            f"{type(tesla).__name__}"
        )
    return tesla


def accuracies(tesla: kt.TESLA, split: data.Split) -> dict[str, float]:
    """Returns {percentage: accuracy 0..1} in Keras."""
    logs = tesla.evaluate(split.x, split.y, batch_size=500, verbose=0, return_dict=True)
    return {str(p): float(logs[f"p{p}_accuracy"]) for p in sorted(tesla.percentages)}


def compiled(tesla: kt.TESLA, steps: int) -> kt.TESLA:
    """Returns the model, compiled for so many steps."""
    tesla.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(FLAGS.learning_rate, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return tesla


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    output = pathlib.Path(FLAGS.output_dir)
    tesla = loaded(FLAGS.model)
    output.mkdir(parents=True, exist_ok=True)
    flat = len(tesla.network.input_shape) == 2
    dataset = data.load(FLAGS.dataset, seed=FLAGS.seed, data_dir=FLAGS.data_dir)
    validation, test = (
        data.Split(s.x.reshape(len(s), -1), s.y) if flat else s
        for s in (dataset.validation, dataset.test)
    )
    steps = FLAGS.steps_per_epoch or max(1, len(dataset.train) // FLAGS.batch_size)
    stream = data.batches(dataset.train, FLAGS.batch_size, FLAGS.seed, FLAGS.augment, flat)
    tesla = compiled(tesla, steps * FLAGS.epochs)

    copy = kt.quantization_aware(tesla.network, tesla.percentages)
    aware = kt.TESLA(copy, tesla.percentages, tesla.aggregation, tesla.distillation)
    aware = compiled(aware, steps * FLAGS.epochs)

    def train_on(model):
        model.fit(
            stream,
            steps_per_epoch=steps,
            epochs=FLAGS.epochs,
            validation_data=(validation.x, validation.y),
            validation_batch_size=500,
            callbacks=[keras.callbacks.TerminateOnNaN()],
            verbose=2,
        )

    train_on(aware)
    aware.save(output / "aware.keras")

    def exported(model, folder, **kwargs):
        return kt.tflite.export(
            model,
            output / folder,
            mode="signatures",
            quantization="int8",
            overwrite=True,
            validation_data=(test.x, test.y),
            **kwargs,
        )

    rows = {"float32": accuracies(tesla, test), "aware, in Keras": accuracies(aware, test)}
    bundle = exported(aware, "tflite")
    rows["aware, int8 file"] = {str(e.percentage): e.accuracy for e in bundle.entries}
    if FLAGS.compare:
        train_on(tesla)
        rows["float32, trained longer"] = accuracies(tesla, test)
        typical = next(iter(stream.unbatch().batch(256)))[0].numpy()
        after = exported(tesla, "post_training", representative_data=typical)
        rows["post-training, int8 file"] = {str(e.percentage): e.accuracy for e in after.entries}
    results = {
        "flags": {
            flag.name: flag.value
            for flag in FLAGS.get_key_flags_for_module(__name__)
            if flag.name != "model" and not flag.name.endswith("_dir")
        },
        "accuracy": rows,
        "tflite_bytes": (output / "tflite" / "model.tflite").stat().st_size,
    }
    (output / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    percentages = [str(p) for p in tesla.percentages]
    print("test accuracy, %".ljust(26) + "".join(f"{p:>7} %" for p in percentages))
    for name, found in rows.items():
        print(name.ljust(26) + "".join(f"{100 * found[p]:>9.2f}" for p in percentages))
    print(f"written to {output}")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
