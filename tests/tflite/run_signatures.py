"""Runs signatures of .tflite files in the runtime of the Python that runs this script.

    python run_signatures.py jobs.json results.npz

`jobs.json` is a list of

    {"name": any text without "|", "file": path, "signature": name or null for the only one,
     "inputs": path of an .npz file of {input name: array (examples, ..)},
     "values": {input name: list} of inputs that are the same for every example,
     "delegates": bool, whether the runtime's default delegates (XNNPACK) are applied}

and `results.npz` gets, under `name|output`, the outputs `(examples, ..)` as the runtime returns
them.

It needs NumPy and tflite-runtime or ai-edge-litert, of any version, and nothing of this project.
Each job is printed before it runs: the last one printed is the one in which a process crashed.
"""

import json
import sys

import numpy as np

try:
    from tflite_runtime import interpreter as runtime
except ImportError:
    from ai_edge_litert import interpreter as runtime


def opened(path, delegates):
    kinds = runtime.OpResolverType
    made = runtime.Interpreter(
        model_path=path,
        num_threads=1,
        experimental_op_resolver_type=kinds.AUTO
        if delegates
        else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    # In old runtimes a signature runner made before this runs without the default delegates.
    made.allocate_tensors()
    return made


def run(runner, inputs, values):
    """{output name: array `(examples, ..)`}."""
    batch = next(runner.get_input_details()[name]["shape"][0] for name in inputs)
    examples = len(next(iter(inputs.values())))
    parts = []
    for i in range(0, examples, batch):
        part = {name: array[i : i + batch] for name, array in inputs.items()}
        # A copy: what a runner returns may be overwritten by its next call.
        parts.append({k: np.array(v) for k, v in runner(**part, **values).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def main(jobs_path, results_path):
    with open(jobs_path) as file:
        jobs = json.load(file)
    results, made, made_for = {}, None, None
    for job in jobs:
        print(job["name"], flush=True)
        if made_for != (job["file"], job["delegates"]):
            made_for = (job["file"], job["delegates"])
            made = opened(*made_for)
        runner = made.get_signature_runner(job["signature"])
        details = runner.get_input_details()
        values = {n: np.array(v, details[n]["dtype"]) for n, v in job["values"].items()}
        with np.load(job["inputs"]) as inputs:
            outputs = run(runner, dict(inputs), values)
        for name, array in outputs.items():
            results[f"{job['name']}|{name}"] = array
    np.savez(results_path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
