"""Runtimes that phones still carry run every construction, and compute what the newest one does.

Each runs in an environment and a process of its own; tools/setup_old_runtimes.sh installs them.
"""

import functools
import hashlib
import itertools
import json
import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

import keras_tesla as kt
from keras_tesla.tflite import convert, examples, runtime, standalone, verify
from keras_tesla.tflite.files import reading
from keras_tesla.tflite.graphs import flatbuffer
from keras_tesla.tflite.graphs.flatbuffer import Op, Subgraph, Type
from keras_tesla.tflite.graphs.percentage_graph import PercentageGraph
from tests.tflite import networks

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

RUNTIMES = pathlib.Path(__file__).parents[2] / ".tools/runtimes"
OLD = ["tflite-runtime-2.14.0", "ai-edge-litert-1.0.1"]
NEWEST = "the environment of these tests"
SCRIPT = pathlib.Path(__file__).with_name("run_signatures.py")
CONSTRUCTIONS = [
    ("per_percentage", "shared"),
    ("signatures", "shared"),
    ("signatures", "plain"),
    ("percentage_input", "shared"),
    ("percentage_input", "plain"),
]
QUANTIZATIONS = [None, "dynamic_range", "int8"]
PERCENTAGES = (100, 50, 10)
# {value of the percentage input: the percentage that must serve it}
SERVED = {-(2**31): 10, 1: 10, 10: 10, 11: 50, 50: 50, 51: 100, 100: 100, 2**31 - 1: 100}


def not_run(content, expectations):
    """What `verify.interpret` returns of a file that computes what it should."""
    return verify.Interpreted(content, expectations, [0.0] * len(expectations), [], []), None


@pytest.fixture(scope="module")
def once():
    """A class like `convert.Traced` that converts no model twice: files of all constructions."""
    known, traced = {}, convert.Traced

    class Once(traced):
        def __init__(self, model, *args):
            weights = hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).digest()
            self._arguments = model, *args
            self._key = model.name, weights, str(args)

        def convert(self, *args):
            key = *self._key, str(args)
            if key not in known:
                known[key] = traced(*self._arguments).convert(*args)
            return known[key]

    return Once


@pytest.fixture(
    scope="module",
    params=itertools.product(networks.ALL, QUANTIZATIONS),
    ids=lambda pair: f"{pair[0]}-{pair[1] or 'float32'}",
)
def exports(request, once, tmp_path_factory):
    """A `folder` with inputs.npz and a folder for each mode and storage, and the `quantization`."""
    name, quantization = request.param
    network = networks.ALL[name](PERCENTAGES)
    folder = tmp_path_factory.mktemp("exports")
    inputs = examples.random_inputs(examples.specs_of(network.graph), 6)
    np.savez(folder / "inputs.npz", **inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "Traced", once)
        # That the newest runtime computes what Keras does is tested elsewhere.
        patch.setattr(verify, "interpret", not_run)
        patch.setattr(
            verify, "compile_all", lambda files: [[0.0] * len(f.expectations) for f in files]
        )
        patch.setattr(runtime, "latency", lambda made, inputs: 0.0)
        for mode, storage in CONSTRUCTIONS:
            kt.tflite.export(
                network,
                folder / f"{mode}-{storage}",
                mode=mode,
                storage=storage,
                quantization=quantization,
                inputs=inputs,
                representative_data=inputs if quantization == "int8" else None,
            )
    return types.SimpleNamespace(folder=folder, quantization=quantization)


@pytest.fixture(scope="module")
def jobs(exports):
    """What is run, as run_signatures.py takes it, and the percentage by which it is `served`."""
    made = []

    def add(name, served, file, signature=None, values=None):
        for delegates in (True, False):
            made.append(
                {
                    "name": f"{name}, delegates={delegates}",
                    "served": served,
                    "file": str(file),
                    "signature": signature,
                    "inputs": str(exports.folder / "inputs.npz"),
                    "values": values or {},
                    "delegates": delegates,
                }
            )

    for mode, storage in CONSTRUCTIONS:
        folder, name = exports.folder / f"{mode}-{storage}", f"{mode}, {storage}"
        if mode == "per_percentage":
            for percentage in PERCENTAGES:
                add(f"{name}, p{percentage}", percentage, folder / f"p{percentage}.tflite")
            continue
        file = folder / "model.tflite"
        content = file.read_bytes()
        header = reading.read_header(content)
        for percentage in PERCENTAGES:
            add(f"{name}, p{percentage}", percentage, file, f"p{percentage}")
            part = folder / f"standalone_p{percentage}.tflite"
            part.write_bytes(standalone.extract(content, header, percentage))
            add(f"{name}, p{percentage} standalone", percentage, part)
        for value, served in SERVED.items() if mode == "percentage_input" else ():
            add(f"{name}, {value}", served, file, "serving_default", {"percentage": [value]})
    return sorted(made, key=lambda job: (job["file"], job["delegates"]))  # opens each file once


@functools.cache
def is_too_new(file) -> bool:
    """Whether the converter wrote a hybrid operator that tflite-runtime 2.14 refuses.

    A FULLY_CONNECTED with a scale for each channel, since TensorFlow 2.17, or a TRANSPOSE_CONV.
    """
    model = flatbuffer.unpack(pathlib.Path(file).read_bytes())
    dense = [c.version for c in model.operatorCodes if c.builtinCode == Op.FULLY_CONNECTED]
    graphs = [Subgraph(model, table) for table in model.subgraphs]
    transposed = (
        {graph.tensors[i].type for i in operator.inputs[1:3]}
        for graph in graphs
        for operator in graph.operators
        if graph.op(operator) == Op.TRANSPOSE_CONV
    )
    return max(dense, default=0) >= 12 or {Type.INT8, Type.FLOAT32} in transposed


@pytest.fixture(scope="module")
def results(jobs, exports):
    """A function that runs all jobs in a runtime, once: {"job|output": array}."""

    @functools.cache
    def of(name):
        python = RUNTIMES / name / "bin/python" if name != NEWEST else pathlib.Path(sys.executable)
        if not python.exists():
            pytest.skip(f"{python} is missing; tools/setup_old_runtimes.sh installs it")
        oldest = name == "tflite-runtime-2.14.0"
        taken = [job for job in jobs if not (oldest and is_too_new(job["file"]))]
        # Only the converter's own kernels with int8 weights and float activations are too new.
        assert len(taken) == len(jobs) or exports.quantization == "dynamic_range"
        (exports.folder / "jobs.json").write_text(json.dumps(taken))
        done = subprocess.run(
            [python, SCRIPT, exports.folder / "jobs.json", exports.folder / "results.npz"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        last = done.stdout.splitlines()[-1:]
        assert done.returncode == 0, f"{name} ended with {done.returncode} in {last}: {done.stderr}"
        with np.load(exports.folder / "results.npz") as found:
            return dict(found)

    return of


def code_sizes(folder) -> dict[tuple, float]:
    """{(percentage, output): how much one int8 code of it stands for}."""
    sizes = {}
    for percentage in PERCENTAGES:
        content = (folder / "per_percentage-shared" / f"p{percentage}.tflite").read_bytes()
        graph = PercentageGraph(percentage, content)
        ends = [o for o in graph.subgraph.operators if graph.subgraph.op(o) == Op.DEQUANTIZE]
        quantized = {o.outputs[0]: graph.subgraph.tensors[o.inputs[0]] for o in ends}
        for name, index in graph.outputs.items():
            sizes[percentage, name] = quantized[index].quantization.scale[0]
    return sizes


@pytest.mark.parametrize("name", OLD)
def test_every_construction_computes_in_old_runtimes_what_the_newest_does(
    name, results, jobs, exports
):
    old, newest = results(name), results(NEWEST)
    assert old
    assert old.keys() <= newest.keys()
    served = {job["name"]: job["served"] for job in jobs}
    sizes = code_sizes(exports.folder) if exports.quantization == "int8" else {}
    for key in old:
        job, output = key.split("|")
        expected = newest[key]
        largest = max(1.0, np.abs(expected).max())
        allowed = {
            None: 1e-5 * largest,  # float32 sums in another order
            # A number between two int8 values is rounded up here and down there. Activations
            # get steps of 1/127 of the largest one while they are computed ..
            "dynamic_range": largest / 127,
            # .. or have fixed ones, in each of up to four layers: three steps off is the most seen.
            "int8": 3.5 * sizes.get((served[job], output), 0),
        }[exports.quantization]
        np.testing.assert_allclose(old[key], expected, rtol=0, atol=allowed, err_msg=key)


@pytest.mark.parametrize("name", [*OLD, NEWEST])
def test_a_percentage_input_runs_the_graph_of_the_next_higher_percentage(name, results, jobs):
    found = results(name)
    signatures = {(job["file"], job["delegates"], job["signature"]): job["name"] for job in jobs}
    for job in jobs:  # of those that were not run nothing is found
        for output in [key.split("|")[1] for key in found if key.startswith(job["name"] + "|")]:
            for percentage in PERCENTAGES if job["values"] else ():
                same = signatures[job["file"], job["delegates"], f"p{percentage}"]
                got, expected = found[f"{job['name']}|{output}"], found[f"{same}|{output}"]
                # The same graph gives the same numbers, bit by bit; that of another percentage does
                # not, or nothing above would tell the percentages apart.
                assert np.array_equal(got, expected) == (percentage == job["served"]), job["name"]
