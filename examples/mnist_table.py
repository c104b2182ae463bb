"""Trains every row of the MNIST table: the papers' methods, later ones, and individual networks.

    python examples/mnist_table.py --rows=joint_cosine,individual --seeds=0 --output_dir=out/mnist
    python examples/mnist_table.py --output_dir=out/mnist
    python docs/make_tables.py --mnist=out/mnist

The network is 784-100-100-10 with ReLU, the layer between the hidden ones incomplete. Each run
writes `ROW/SEED/results.json`, with `log.csv` and logs for TensorBoard next to it. Existing results
are not run again, so a killed table continues. The table is printed at the end. Every decision is
made on the validation split; the test split is read once per run.
"""

import dataclasses
import json
import pathlib
import shutil
import time

import keras
import numpy as np
from absl import app, flags, logging

import keras_tesla as kt
from keras_tesla import data, literature
from keras_tesla.training.attenuation import GradientAttenuation
from keras_tesla.training.distillation import InPlaceDistillation

FLAGS = flags.FLAGS
flags.DEFINE_list("seeds", [0, 1, 2], "Seeds of weights, order and splits.")
flags.DEFINE_enum("dataset", "mnist", ["digits", "mnist", "fashion_mnist"], "What to learn.")
flags.DEFINE_string("data_dir", None, "Folder of TFDS; default: that of TFDS_DATA_DIR.")
flags.DEFINE_float("budget", 1.0, "Factor of all numbers of epochs, for a try.")
flags.DEFINE_string("output_dir", "out/mnist_table", "Where the results go.")

TRAINED = tuple(range(100, 0, -10))
POINTS = tuple(range(10, 101, 5))


@dataclasses.dataclass(frozen=True)
class Row:
    """How one row is trained. The default budget is the paper's, 10,000 steps of 28 images."""

    percentages: tuple = TRAINED
    profile: str = "all_one"
    trainable_profile: bool = False
    ranges: tuple = ()  # of multi-profile IDP
    tasks: str = ""  # descending, random (drawn until they stop) or sandwich (drawn each step)
    distillation: float = 0.0  # share of in-place distillation in the narrower ones' loss
    narrowest_weight: float = 1.0  # of the loss at 10 %; those of the others weigh 1
    cosine: bool = False
    private: bool = False  # batch normalization, and numbers of its own for each percentage
    attenuation: float = 1.0  # of the wide percentages' gradients; see `GradientAttenuation(start)`
    epochs: int = 50
    steps_per_epoch: int = 200
    batch_size: int = 28
    individual: bool = False
    minutes: int = 1  # a seed, on two cores


# A task ends, and the profile's turn comes, at the end of an epoch: the same steps in more of them.
SHORT_EPOCHS = {"epochs": 100, "steps_per_epoch": 100}
SHORTEST_EPOCHS = {"epochs": 500, "steps_per_epoch": 20}
LONG = {"epochs": 20, "steps_per_epoch": 421, "batch_size": 128, "cosine": True}
ROWS = {
    "idp": Row((100,), profile="harmonic"),
    "multi_profile": Row((100, 30), profile="harmonic", ranges=(30, 100)),
    "tesla": Row(tasks="descending", minutes=3),
    "tesla_trainable": Row(tasks="descending", trainable_profile=True, minutes=3, **SHORT_EPOCHS),
    "r_tesla": Row(tasks="random", minutes=2, **SHORTEST_EPOCHS),
    "r_tesla_trainable": Row(tasks="random", trainable_profile=True, minutes=5, **SHORTEST_EPOCHS),
    "joint": Row(),
    "joint_cosine": Row(cosine=True),
    "joint_all": Row(tuple(POINTS[::-1]), cosine=True),
    "joint_weighted": Row(tuple(POINTS[::-1]), cosine=True, narrowest_weight=4.0),
    "joint_distilled": Row(tuple(POINTS[::-1]), cosine=True, distillation=0.5),
    "sandwich_distilled": Row(tuple(POINTS[::-1]), tasks="sandwich", distillation=1.0, cosine=True),
    "recipe": Row(tuple(POINTS[::-1]), cosine=True, private=True, attenuation=0.7, minutes=3),
    "individual": Row(POINTS, cosine=True, individual=True, minutes=8),
    "individual_norm": Row(POINTS, cosine=True, private=True, individual=True, minutes=10),
    "joint_long": Row(tuple(POINTS[::-1]), **LONG),
    "weighted_long": Row(tuple(POINTS[::-1]), narrowest_weight=4.0, **LONG),
    "distilled_long": Row(tuple(POINTS[::-1]), distillation=0.5, **LONG),
    "recipe_long": Row(tuple(POINTS[::-1]), private=True, attenuation=0.7, minutes=3, **LONG),
    "individual_long": Row(POINTS, individual=True, minutes=10, **LONG),
    "individual_norm_long": Row(POINTS, private=True, individual=True, minutes=12, **LONG),
}
flags.DEFINE_list(
    "rows",
    None,
    "Rows to train; default: all. Minutes of a seed on two cores: "
    + ", ".join(f"{name} {row.minutes}" for name, row in ROWS.items()),
)


def optimizer(row: Row):
    """Adam 1e-3, or 2e-3 falling to zero as a cosine."""
    if not row.cosine:
        return keras.optimizers.Adam(1e-3)
    steps = row.epochs * row.steps_per_epoch
    return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps))


def fit(model, row: Row, dataset: data.Dataset, seed: int, others=()):
    """Trains a plain or TESLA model for the row's budget, with other callbacks."""
    model.compile(
        optimizer(row),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # A step takes less time than a call of it; random tasks change from call to call.
        steps_per_execution=1 if row.tasks == "sandwich" else 10,
    )
    return model.fit(
        data.batches(dataset.train, row.batch_size, seed=seed, flat=True),
        steps_per_epoch=row.steps_per_epoch,
        epochs=row.epochs,
        validation_data=flat(dataset.validation) if row.tasks else None,
        validation_batch_size=1000,
        callbacks=[keras.callbacks.TerminateOnNaN(), *others],
        verbose=0,
    )


def flat(split: data.Split):
    """Images as rows, and labels."""
    return split.x.reshape(len(split), -1), split.y


def callbacks(row: Row, seed: int) -> list:
    """What drives the tasks of a row."""
    driving: list = []
    if row.tasks in ("descending", "random"):
        driving.append(
            kt.callbacks.TaskWiseEarlyStopping(
                "val_p{percentage}_accuracy",
                min_delta=0.002,
                patience=1,
                last_patience=row.epochs,
                reset_optimizer=row.tasks == "descending",
                order=row.tasks,
                seed=seed,
            )
        )
    if row.tasks == "sandwich":
        driving.append(kt.callbacks.RandomPercentages(seed=seed))
    if row.ranges:
        share = row.epochs // len(row.ranges)
        driving.append(kt.callbacks.MultiProfile(dict.fromkeys(row.ranges, share)))
    if row.trainable_profile:
        reset = row.tasks == "descending"
        driving.append(kt.callbacks.AlternatingProfiles(reset_optimizer=reset))
    return driving


def network(row: Row, features: int, classes: int, percentages=None) -> keras.Model:
    """The papers' MLP; with a first and last layer for each range if there are several."""
    mlp = literature.mlp(
        features,
        classes,
        profile=row.profile,
        trainable_profile=row.trainable_profile,
        private_percentages=(percentages or row.percentages) if row.private else None,
    )
    if not row.ranges:
        return mlp
    first, middle, last = mlp.layers

    def per_range(layer):
        copies = {p: type(layer).from_config(layer.get_config()) for p in row.ranges}
        for p, copy in copies.items():
            copy.name = f"{layer.name}_{p}"
        return kt.layers.PerRange(copies)

    return keras.Sequential([mlp.inputs[0], per_range(first), middle, per_range(last)])


def train_one(row: Row, dataset: data.Dataset, seed: int, folder: pathlib.Path) -> dict:
    """Trains one scalable network; returns its accuracies."""
    model = network(row, dataset.train.x[0].size, dataset.classes)
    weights = dict.fromkeys(row.percentages, 1.0)
    weights[row.percentages[-1]] = row.narrowest_weight
    distillation = InPlaceDistillation(row.distillation) if row.distillation else None
    attenuation = GradientAttenuation(row.attenuation)
    tesla = kt.TESLA(model, row.percentages, weights, distillation, attenuation)
    logs = [
        kt.callbacks.PercentageCSVLogger(folder / "log.csv"),
        keras.callbacks.TensorBoard(folder / "tensorboard"),
    ]
    history = fit(tesla, row, dataset, seed, [*callbacks(row, seed), *logs])
    tesla.save(folder / "tesla.keras")
    found = {"epochs": len(history.epoch)}
    for name, split in (("validation_accuracy", dataset.validation), ("accuracy", dataset.test)):
        accuracy = tesla.evaluate(
            *flat(split), batch_size=1000, percentages=POINTS, verbose=0, return_dict=True
        )
        found[name] = {str(p): float(accuracy[f"p{p}_accuracy"]) for p in POINTS}
    return found


def train_individual(row: Row, dataset: data.Dataset, seed: int) -> dict:
    """Trains a network of its own for each percentage, as large as the scalable one is there."""
    found = {"epochs": row.epochs, "validation_accuracy": {}, "accuracy": {}}
    for p in row.percentages:
        keras.utils.set_random_seed(seed)
        scalable = network(row, dataset.train.x[0].size, dataset.classes, [p])
        plain = kt.TESLA(scalable, [p]).at(p)  # the same shape, freshly initialized
        fresh = keras.models.clone_model(plain)
        fit(fresh, row, dataset, seed)
        for name, split in (
            ("validation_accuracy", dataset.validation),
            ("accuracy", dataset.test),
        ):
            logs = fresh.evaluate(*flat(split), batch_size=1000, verbose=0, return_dict=True)
            found[name][str(p)] = float(logs["accuracy"])
    return found


def run(name: str, row: Row, seed: int, folder: pathlib.Path) -> dict:
    """Trains a row with a seed and returns what `results.json` holds."""
    keras.utils.set_random_seed(seed)
    dataset = data.load(FLAGS.dataset, seed=seed, data_dir=FLAGS.data_dir)
    row = dataclasses.replace(row, epochs=max(2, round(row.epochs * FLAGS.budget)))
    begin = time.monotonic()
    if row.individual:
        found = train_individual(row, dataset, seed)
    else:
        found = train_one(row, dataset, seed, folder)
    return {
        "row": name,
        "seed": seed,
        "dataset": FLAGS.dataset,
        "settings": {k: v for k, v in dataclasses.asdict(row).items() if k != "minutes"},
        "backend": keras.backend.backend(),
        "seconds": round(time.monotonic() - begin),
        **found,
    }


def results_of(name: str, seed: int, output: pathlib.Path) -> dict:
    """What is in a run's `results.json`; trains the run if it is not there."""
    folder = output / name / str(seed)
    if not (folder / "results.json").exists():
        shutil.rmtree(folder, ignore_errors=True)  # what a killed run left
        folder.mkdir(parents=True)
        results = json.dumps(run(name, ROWS[name], seed, folder), indent=1)
        (folder / "results.json.part").write_text(results + "\n")
        (folder / "results.json.part").rename(folder / "results.json")
    return json.loads((folder / "results.json").read_text())


def print_table(by_row: dict):
    """Prints test accuracies, means over the seeds, in percent."""
    shown = ("10", "20", "30", "50", "75", "100")
    print(f"\n{'row':<24}{'seeds':>6}{'mean':>8}" + "".join(f"{p + ' %':>8}" for p in shown))
    for name, runs in by_row.items():
        at = {p: 100 * np.mean([run["accuracy"][p] for run in runs]) for p in map(str, POINTS)}
        figures = (np.mean(list(at.values())), *(at[p] for p in shown))
        print(f"{name:<24}{len(runs):>6}" + "".join(f"{x:8.2f}" for x in figures))


def main(_):
    output = pathlib.Path(FLAGS.output_dir)
    rows = FLAGS.rows or list(ROWS)
    unknown = sorted(set(rows) - set(ROWS))
    if unknown:
        raise app.UsageError(f"--rows must be among {', '.join(ROWS)}. Received: {unknown}")
    by_row: dict[str, list] = {name: [] for name in rows}
    for seed in map(int, FLAGS.seeds):
        for name in rows:
            results = results_of(name, seed, output)
            by_row[name].append(results)
            mean = 100 * np.mean(list(results["validation_accuracy"].values()))
            print(f"{name} {seed}: {mean:.2f} % validation accuracy on average", flush=True)
    print_table(by_row)


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
