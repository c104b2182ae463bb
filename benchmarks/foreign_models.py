r"""Networks that were not written for this library, through all of it: what holds, what does not.

Each network goes through these steps, in a process of its own:

    to_idp          becomes incomplete at 100 and 50 %
    left            the classes of layers that are computed in full, most frequent first
    equal           computes at 100 % what it did: the largest difference over the largest output
    multiply_adds   at 50 %, over those at 100 %; `not_counted` names layers that nobody can count
    at              `TESLA.at(50)` computes what the network does in `percentage_scope(50)`
    gone            layers with weights that are not computed at 50 %, of all
    fit             one step of training
    export          one file, which export compares with Keras
    load            the file opened again, at 50 %, compared with Keras

A step is "ok", a number, or what was raised; what depends on a step that failed is left out. There
are no timings, so a busy machine changes nothing. What the output has already is not run again.

    python benchmarks/foreign_models.py --output=foreign_models.json [--models=unet,app_MobileNetV2]

Models are the functions of `foreign_networks.py`, as `app_NAME` those of keras.applications, and as
`hub_NAME`, where KerasHub is installed, the backbones of `hub_networks.py`.
"""

import collections
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import warnings

import foreign_networks  # the file next to this one
import hub_networks  # likewise
import keras
import numpy as np
from absl import app, flags, logging

import keras_tesla as kt
from keras_tesla.kinds.registry import multiply_adds_of
from keras_tesla.narrowing.plan import narrow
from keras_tesla.tflite import examples, interface
from keras_tesla.tflite.convert import output_names
from keras_tesla.tflite.measure.machine import describe

# {name: height and width}: the smallest of each family, at the smallest size that it takes.
APPLICATIONS = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Large": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "VGG19": 32,
    "Xception": 71,
}
OWN = {**foreign_networks.NETWORKS, **hub_networks.NETWORKS}
SHAPES = {**foreign_networks.INPUT_SHAPES, **hub_networks.INPUT_SHAPES}
MODELS = (*OWN, *(f"app_{name}" for name in APPLICATIONS))
_LEFT = 4  # kinds of layers that are named
_LONGEST = 300  # characters of a message

_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write, and to go on with.")
_NAMES = flags.DEFINE_list("models", None, f"Those to run; default: all {len(MODELS)}.")
_AGAIN = flags.DEFINE_bool("again", False, "Whether to run those that the output has, too.")
_LIMIT = flags.DEFINE_integer("seconds", 1800, "Time limit of a model.", lower_bound=1)
_ONE = flags.DEFINE_string("one", None, "Runs this model here and prints its row as JSON.")


def build(name):
    """Returns a network with weights, scales and statistics that are all random."""
    keras.utils.set_random_seed(0)
    if name in OWN:
        model = OWN[name]()
    else:
        application = name.removeprefix("app_")
        size = APPLICATIONS[application]
        make = getattr(keras.applications, application)
        model = make(weights=None, input_shape=(size, size, 3), classes=10)
    random = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "bias", "moving_mean"):
            variable.assign(variable + random.normal(0, 0.1, variable.shape))
    return model


def difference(ones, others):
    """The largest difference of outputs over the largest output, at least 1."""
    worst = 0.0
    for a, b in zip(keras.tree.flatten(ones), keras.tree.flatten(others), strict=True):
        a, b = (np.asarray(keras.ops.convert_to_numpy(x), "float64") for x in (a, b))
        worst = max(worst, float(np.abs(a - b).max() / max(1.0, np.abs(b).max())))
    return float(f"{worst:.2g}") if math.isfinite(worst) else str(worst)


def _is_whole(row) -> bool:
    """Whether all of a layer is computed at 50 %."""
    computed, _, of = row.computed.partition(" of ")
    return row.became == row.kind and computed in (of, "all")


class Trial:
    """One network on its way through the library; each method is a step and gives its result."""

    def __init__(self, name):
        self._shapes = SHAPES.get(name)
        self._model = build(name)

    def to_idp(self):
        converted = kt.to_idp(self._model, [100, 50])
        self._report = converted.conversion_report
        self._tesla = kt.TESLA(converted, [100, 50])
        self._taken = interface.of(converted, self._tesla.graph, self._shapes)
        self._arrays = examples.random_inputs(self._taken.specs, 4)
        tensors = self._taken.to_tensors(self._arrays)
        self._inputs = keras.tree.pack_sequence_as(self._taken.inputs, tensors)
        return "ok"

    def left(self):
        whole = collections.Counter(row.kind for row in self._report if _is_whole(row))
        return dict(whole.most_common(_LEFT))

    def equal(self):
        return difference(self._tesla.network(self._inputs), self._model(self._inputs))

    def at(self):
        return difference(self._tesla.at(50)(self._inputs), self._outputs())

    def multiply_adds(self):
        counts = [sum(self._counts(percentage)) for percentage in (50, 100)]
        return round(counts[0] / counts[1], 3)

    def not_counted(self):
        calls = self._taken.graph.calls
        return [c.operation.name for c in calls if multiply_adds_of(c) is None]

    def gone(self):
        with_weights = [
            {id(c.operation) for c in calls if getattr(c.operation, "weights", None)}
            for calls in (self._taken.graph.calls, self._calls(50))
        ]
        return [len(with_weights[0] - with_weights[1]), len(with_weights[0])]

    def fit(self):
        self._tesla.compile("sgd", "mse")
        y = keras.tree.map_structure(lambda x: np.zeros(x.shape, "float32"), self._outputs())
        loss = self._tesla.train_on_batch(self._inputs, y)
        assert np.all(np.isfinite(loss))
        return "ok"

    def export(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "out"
            kt.tflite.export(self._tesla, out, mode="signatures", input_shapes=self._shapes)
            self._loaded = kt.tflite.load(out)(self._taken.of_file(self._arrays), percentage=50)
        return "ok"

    def load(self):
        names = output_names(self._tesla.at(50))
        expected = dict(zip(names, keras.tree.flatten(self._outputs()), strict=True))
        got = self._loaded if isinstance(self._loaded, dict) else {names[0]: self._loaded}
        return difference([got[name] for name in names], [expected[name] for name in names])

    def _outputs(self):
        with kt.percentage_scope(50):
            return self._tesla.network(self._inputs)

    def _calls(self, percentage):
        return [step.call for step in narrow(self._taken.graph, percentage).steps]

    def _counts(self, percentage):
        plan = narrow(self._taken.graph, percentage)
        for step in plan.steps:
            weights = None if step.narrowed is None else step.narrowed.weights()
            yield multiply_adds_of(plan.narrowed_call(step), weights) or 0


# {step: what must have come before}
STEPS = {
    "to_idp": (),
    **dict.fromkeys(("left", "equal", "at", "multiply_adds", "not_counted", "gone"), ("to_idp",)),
    "fit": ("to_idp",),
    "export": ("to_idp",),
    "load": ("export",),
}


def run(name):
    """Returns the row of a model; a step that raised is among `errors`."""
    row, errors = {"model": name}, {}
    trial = Trial(name)
    for step, needed in STEPS.items():
        if all(before in row for before in needed):
            try:
                row[step] = getattr(trial, step)()
            except Exception as error:  # whatever the library, Keras or the converter raises
                errors[step] = f"{type(error).__name__}: {error}".replace("\n", " ")[:_LONGEST]
    return {**row, "errors": errors}


def run_apart(name):
    """Returns the row of a model that runs in a process of its own."""
    command = [sys.executable, __file__, f"--one={name}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT.value)
    except subprocess.TimeoutExpired:
        return {"model": name, "errors": {"process": f"took more than {_LIMIT.value} s"}}
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        return {"model": name, "errors": {"process": f"ended with {done.returncode}: {last}"}}
    return json.loads(done.stdout.splitlines()[-1])


def main(_):
    if _ONE.value:
        warnings.simplefilter("ignore")  # of layers that are cut off
        print(json.dumps(run(_ONE.value)))
        return
    if not _OUTPUT.value:
        raise app.UsageError("--output=FILE.json is needed.")
    names = _NAMES.value or MODELS
    unknown = set(names) - set(MODELS)
    if unknown:
        raise app.UsageError(f"--models are among {MODELS}. Received: {sorted(unknown)}")
    output = pathlib.Path(_OUTPUT.value)
    rows = {}
    if output.exists():
        rows = {row["model"]: row for row in json.loads(output.read_text())["rows"]}
    for name in names:
        if name in rows and not _AGAIN.value:
            continue
        if name in hub_networks.NETWORKS and not hub_networks.INSTALLED:
            print(name, "is left out: keras-hub is not installed.")
            continue
        rows[name] = run_apart(name)
        print(name, {k: v for k, v in rows[name].items() if k != "model"}, flush=True)
        known = [rows[each] for each in MODELS if each in rows]
        machine = describe(1, ("keras", "tensorflow", "ai-edge-litert"))
        output.write_text(json.dumps({"rows": known, "machine": machine}, indent=1) + "\n")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
