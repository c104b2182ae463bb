r"""What kill -9 at random moments leaves behind.

Three things are killed and started again until each has been killed often enough. The moments are
drawn from a seed: of training an epoch and a moment within it, of the others a time up to what they
take when they are not killed.

    training   task-wise training with `TaskWiseEarlyStopping` and `BackupAndRestore`, as
               docs/training.md says. Each run is killed and started again until it ends.
               `in_a_backup`: the kills that hit while the backup was written. `ends`: the runs that
               ended, all with a model that loads. `equal`: those whose weights are, bit for bit,
               those of an uninterrupted run. `wrong_task`: starts that continued with other
               percentages than that run had in the same epoch. `failed_starts`: starts that ended
               with an error.
    export     `keras_tesla.tflite.export` over an older export, or where there was none. `old`,
               `new`, `absent`: what was found after the kill, `half`: anything else.
               `failed_starts`: exports after a kill that did not succeed.
    folder     only the last step of an export, in an endless loop, where a random moment hits it
               more often than in a whole export.

    python benchmarks/kill.py --output kill.json
"""

import functools
import hashlib
import itertools
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import tempfile
import time

import keras
import numpy as np
import timing  # the file next to this one
from absl import app, flags, logging

import keras_tesla as kt
from keras_tesla.tflite.files import folder

_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.", required=True)
_KILLS = flags.DEFINE_integer("kills", 25, "Of training, and of export.", lower_bound=2)
_FOLDER_KILLS = flags.DEFINE_integer("folder_kills", 200, "Of the last step.", lower_bound=1)
_EPOCHS = flags.DEFINE_integer("epochs", 18, "Of a training run.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")
_PERCENTAGES = (100, 50, 20)
# Children come from a process that has imported everything: what is killed is work, not imports.
_CONTEXT = multiprocessing.get_context("forkserver")


def network(name="digits"):
    """A small network for the digits."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((64,), name="image"),
        keras.layers.Dense(32, activation="relu"),
        kt.layers.IDPDense(32, activation="relu"),
        kt.layers.IDPDense(10, name="logits"),
    ]
    return kt.TESLA(keras.Sequential(layers, name=name), _PERCENTAGES)


def _run(work, *arguments, ready=None, after=0.0):
    """Returns a child's exit code (-9: killed) and the seconds it took.

    Args:
        work: The function that the child runs.
        *arguments: What it is given.
        ready: Function without arguments, asked until it says true. None: the child is not killed.
        after: Seconds from then on until the child is killed.
    """
    process = _CONTEXT.Process(target=work, args=arguments)
    begin = time.monotonic()
    process.start()
    while ready is not None and process.is_alive() and not ready():
        time.sleep(0.001)
    process.join(None if ready is None else after)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode, time.monotonic() - begin


# Training.


class _Diary(keras.callbacks.Callback):
    """Writes down what happens, in a file that a kill leaves as it is."""

    def __init__(self, path, what):
        super().__init__()
        self._path, self._what = path, what

    def _note(self, *words):
        with open(self._path, "a") as file:
            file.write(json.dumps(words) + "\n")

    def on_epoch_begin(self, epoch, logs=None):
        if self._what == "saved":
            self._note("begin", epoch, self.model.active_percentages, time.time())

    def on_epoch_end(self, epoch, logs=None):
        self._note(self._what, epoch)


def _flat(split):
    return split.x.reshape(len(split), -1), split.y


def _train(place, epochs):
    """Trains, or goes on with the training that was killed in this folder."""
    place.mkdir(exist_ok=True)
    tesla, digits = network(), kt.data.load("digits")
    tesla.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,  # compiles sooner
    )
    tesla.fit(
        *_flat(digits.train),
        validation_data=_flat(digits.validation),
        epochs=epochs,
        shuffle=False,  # every run sees the same batches
        verbose=0,
        callbacks=[
            kt.callbacks.TaskWiseEarlyStopping(
                "val_p{percentage}_accuracy", min_delta=0.02, patience=1, last_patience=epochs
            ),
            _Diary(place / "diary", "saving"),
            kt.callbacks.BackupAndRestore(place / "backup"),
            _Diary(place / "diary", "saved"),
        ],
    )
    tesla.save(place / "tesla.keras")


def _notes(place):
    lines = (place / "diary").read_text().splitlines() if (place / "diary").exists() else []
    return [json.loads(line) for line in lines]


def _has_notes(place, count):
    return len(_notes(place)) >= count


def training(directory, kills, epochs, moments) -> dict:
    """Kills training; the module's documentation says what is returned."""
    code, _ = _run(_train, directory / "whole", epochs)
    if code != 0:
        raise RuntimeError(f"Uninterrupted training ended with {code}.")
    begun = [note for note in _notes(directory / "whole") if note[0] == "begin"]
    tasks = {epoch: active for _, epoch, active, _ in begun}
    seconds = (begun[-1][-1] - begun[0][-1]) / max(1, len(begun) - 1)  # an epoch
    right = keras.saving.load_model(directory / "whole" / "tesla.keras").get_weights()
    found = dict.fromkeys(
        ("kills", "in_a_backup", "wrong_task", "failed_starts", "ends", "equal"), 0
    )
    while found["kills"] < kills:
        place = directory / str(found["kills"])
        while True:
            known = len(_notes(place))
            target = known + moments.randint(0, 2 * epochs)  # an epoch has three notes
            after = moments.uniform(0, seconds)
            ready = None
            if found["kills"] < kills:
                ready = functools.partial(_has_notes, place, target)
            code, _ = _run(_train, place, epochs, ready=ready, after=after)
            notes = _notes(place)
            if code != -signal.SIGKILL:
                break
            found["kills"] += 1
            found["in_a_backup"] += bool(notes) and notes[-1][0] == "saving"
        begun = [note for note in notes if note[0] == "begin"]
        found["wrong_task"] += sum(tasks[epoch] != active for _, epoch, active, _ in begun)
        found["failed_starts"] += code != 0
        if code == 0:
            found["ends"] += 1
            got = keras.saving.load_model(place / "tesla.keras").get_weights()
            found["equal"] += all(map(np.array_equal, got, right))
    return {"what": "training", "epoch_seconds": round(seconds, 3), **found}


# Export.


def _export(out, name):
    kt.tflite.export(network(name), out, mode="signatures", overwrite=True)


def _at_once():
    return True


def _state(out) -> str:
    """Which export a folder holds: its name, `absent`, or `half`."""
    if not out.exists():
        return "absent"
    try:
        bundle = json.loads((out / folder.MANIFEST).read_text())
        named = {file["file"]: file["sha256"] for file in bundle["files"]}
        there = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in out.iterdir()
            if path.name != folder.MANIFEST
        }
    except (OSError, ValueError):
        return "half"
    return bundle["name"] if named == there else "half"


def exporting(directory, kills, moments) -> dict:
    """Kills exports; the module's documentation says what is returned."""
    old, out = directory / "kept", directory / "out"
    code, seconds = _run(_export, old, "old")
    if code != 0:
        raise RuntimeError(f"An uninterrupted export ended with {code}.")
    found = dict.fromkeys(("kills", "old", "new", "absent", "half", "failed_starts"), 0)
    while found["kills"] < kills:
        shutil.rmtree(out, ignore_errors=True)
        if found["kills"] % 2:
            shutil.copytree(old, out)
        before = _state(out)
        code, took = _run(_export, out, "new", ready=_at_once, after=moments.uniform(0, seconds))
        if code == -signal.SIGKILL:
            found["kills"] += 1
            after = _state(out)
            found[after if after in (before, "new") else "half"] += 1
        else:
            found["failed_starts"] += code != 0
            seconds = took  # other work on the machine comes and goes
    leftovers = len(list(directory.glob(".out-*")))
    code, _ = _run(_export, out, "new")  # with all that the killed exports left next to it
    found["failed_starts"] += code != 0 or _state(out) != "new"
    return {"what": "export", "seconds": round(seconds, 1), **found, "leftovers": leftovers}


def _rewrite(out):
    for name in itertools.cycle(("old", "new")):
        with folder.whole(out, overwrite=True) as temporary:
            files = {f"{part}.tflite": f"{name} {part}".encode() for part in range(3)}
            for file, content in files.items():
                (temporary / file).write_bytes(content)
            said = [
                {"file": file, "sha256": hashlib.sha256(content).hexdigest()}
                for file, content in files.items()
            ]
            (temporary / folder.MANIFEST).write_text(json.dumps({"name": name, "files": said}))


def _written(out):
    """A function that says whether the folder was written again since now."""
    before = out.stat().st_ino if out.exists() else None
    return lambda: out.exists() and out.stat().st_ino != before


def rewriting(directory, kills, moments) -> dict:
    """Kills the last step of an export; the module's documentation says what is returned."""
    out = directory / "out"
    found = dict.fromkeys(("kills", "old", "new", "absent", "half"), 0)
    while found["kills"] < kills:
        code, _ = _run(_rewrite, out, ready=_written(out), after=moments.uniform(0, 0.05))
        if code != -signal.SIGKILL:
            raise RuntimeError(f"An endless loop ended with {code}.")
        found["kills"] += 1
        found[_state(out)] += 1
    return {"what": "folder", **found, "leftovers": len(list(directory.glob(".out-*")))}


def main(_):
    os.environ.update(timing.thread_environment(1))  # of the children
    _CONTEXT.set_forkserver_preload(["keras_tesla", "sklearn.datasets"])
    moments = random.Random(_SEED.value)
    _run(network)  # the process that children come from is there before anything is timed
    with tempfile.TemporaryDirectory() as directory:
        places = [pathlib.Path(directory) / name for name in ("training", "export", "folder")]
        for place in places:
            place.mkdir()
        rows = []
        for work in (
            lambda: training(places[0], _KILLS.value, _EPOCHS.value, moments),
            lambda: exporting(places[1], _KILLS.value, moments),
            lambda: rewriting(places[2], _FOLDER_KILLS.value, moments),
        ):
            rows.append(work())
            print(rows[-1], flush=True)
    result = {"rows": rows, "machine": timing.machine(threads=1)}
    pathlib.Path(_OUTPUT.value).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
