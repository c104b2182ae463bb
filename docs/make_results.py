"""Writes docs/results.md and its plot from the JSON of the runs; no figure in it is typed.

    python docs/make_results.py --runs=out/mnist

collects `*/results.json` of that folder first; without `--runs` the committed JSON is used.
"""

import collections
import json
import pathlib
import statistics

from absl import app, flags

from keras_tesla.analysis import plots

FLAGS = flags.FLAGS
flags.DEFINE_string("runs", None, "Folder with the runs' folders; default: use the committed JSON.")

DOCS = pathlib.Path(__file__).parent
MNIST = DOCS / "results" / "mnist_mlp.json"
STEPS = DOCS.parent / "benchmarks" / "training_step.json"
ONE_FILE = DOCS.parent / "benchmarks" / "one_file.json"
POINTS = [str(p) for p in range(10, 101, 5)]
LABELS = {
    "idp": "original IDP, harmonic profile",
    "tesla": "TESLA, task-wise, all-one profile",
    "joint": "TESLA, joint, all-one profile",
}
PAPER = {"idp": 88.37, "tesla": 94.67, "joint": None}
# Multiply-adds of 784-100-100-10 at p percent: p of the first layer's outputs are needed.
COST = {p: 784 * int(p) + int(p) * 100 + 1000 for p in POINTS}

MNIST_INTRODUCTION = """\
## MNIST, the papers' MLP

784-100-100-10, ReLU, incomplete on the inputs of the middle layer; the paper's budget: 50 epochs
of 200 batches of 28, Adam 1e-3. Test accuracy in percent; the mean is over 10, 15, 20, .., 100 %
(19 points; trained are 10, 20, .., 100). 6,000 of the 60,000 training images are the validation
split, on which every setting was chosen; the test split was read once a run. Mean and standard
deviation are over the seeds."""
STEPS_INTRODUCTION = """\
## A training step

One aggregated step of ten percentages over one full-width step of plain Keras on the same backend,
MLP 784-512-512-10, batch 128, interleaved medians. `mac_ratio` is what separately sliced passes
with a shared first layer would cost in multiply-adds."""

ONE_FILE_INTRODUCTION = """\
## One file for all percentages

Ten percentages, 10 .. 100 %, in one file, over files made for one percentage alone. `bytes`: the
file over the float32 file of 100 %. `latency`: a call over one of the percentage's own file with
the same quantization, one thread, calls by turns, several openings of the files; the greatest and
the median of the ten percentages. `extra`: the greatest difference. `error`: the greatest
difference between outputs and Keras. The networks are in `benchmarks/networks.py`."""
ACCURACY_INTRODUCTION = """\
int8, CIFAR-10 test split, percent. In one file all percentages share the codes of 100 %; `alone`
is the converter's own int8 file of the percentage."""
MEMORY_INTRODUCTION = """\
Memory: growth of the process's resident memory until three calls were made. `alone`: one
percentage opened with `load`, over its own file in the Interpreter. `second start`:
`load(cache_dir=)`, the cache filled by an earlier start, over the own file opened the same way."""


def mean(runs, point):
    """Mean test accuracy over the seeds, in percent."""
    return 100 * statistics.mean(run["accuracy"][point] for run in runs)


def mnist_section(by_method):
    """The table of the papers' MLP."""
    lines = [
        *MNIST_INTRODUCTION.splitlines(),
        "",
        "| method | seeds | mean | at 10 % | at 30 % | at 100 % | paper's mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, runs in by_method.items():
        means = [100 * run["mean_accuracy_10_to_100"] for run in runs]
        paper = PAPER[method]
        lines.append(
            f"| {LABELS[method]} | {len(runs)} | {statistics.mean(means):.2f} "
            f"+- {statistics.stdev(means):.2f} | {mean(runs, '10'):.1f} | {mean(runs, '30'):.1f} | "
            f"{mean(runs, '100'):.1f} | {'' if paper is None else paper} |"
        )
    differences = [
        100 * abs(run["tflite_accuracy"][p] - run["accuracy"][p])
        for runs in by_method.values()
        for run in runs
        for p in run.get("tflite_accuracy", {})
    ]
    lines += [
        "",
        f"The exported .tflite files ({len(differences)}: ten percentages of each task-wise run)"
        " differ from Keras",
        f"by at most {max(differences):.2f} points of test accuracy.",
        "",
        "![accuracy over cost](images/mnist_accuracy_over_cost.png)",
        "",
        "Seed by seed:",
        "",
        "| method | seed | mean | 10 % | 20 % | 30 % | 50 % | 100 % | epochs |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, runs in by_method.items():
        for run in runs:
            figures = " | ".join(
                f"{100 * run['accuracy'][p]:.2f}" for p in ("10", "20", "30", "50", "100")
            )
            lines.append(
                f"| {LABELS[method]} | {run['flags']['seed']} | "
                f"{100 * run['mean_accuracy_10_to_100']:.2f} | {figures} | {run['epochs']} |"
            )
    lines += ["", "Again: `python examples/mnist_mlp.py --dataset=mnist --seed=0 --method=tesla`."]
    return lines


def steps_section():
    """The table of the training step's cost."""
    measured = json.loads(STEPS.read_text())
    lines = [
        "",
        *STEPS_INTRODUCTION.splitlines(),
        "",
        "| backend | XLA | method | ratio | mac_ratio | step, ms | plain step, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in measured["rows"]:
        lines.append(
            f"| {row['backend']} | {'yes' if row['jit'] else 'no'} | {row['method']} | "
            f"{row['ratio_to_plain_step']:.2f} | {row['mac_ratio']:.2f} | {row['step_ms']:.2f} | "
            f"{row['plain_step_ms']:.2f} |"
        )
    machine = ", ".join(f"{key} {value}" for key, value in measured["machine"].items())
    return [*lines, "", f"Machine: {machine}."]


def one_file_section():
    """The tables of one file for all percentages."""
    measured = json.loads(ONE_FILE.read_text())
    by_file = collections.defaultdict(list)
    for row in measured["rows"]:
        by_file[row["network"], row["mode"], row["storage"], row["quantization"]].append(row)
    lines = [
        "",
        *ONE_FILE_INTRODUCTION.splitlines(),
        "",
        "| network | mode | storage | weights | bytes | latency | median | extra, us | error |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (network, mode, storage, quantization), rows in by_file.items():
        ratios = [row["latency_ratio"] for row in rows]
        lines.append(
            f"| {network} | {mode} | {storage} | {quantization or 'float32'} | "
            f"{rows[0]['bytes_ratio']:.3f} | {max(ratios):.2f} | {statistics.median(ratios):.2f} | "
            f"{1e6 * max(row['latency_extra'] for row in rows):.1f} | "
            f"{max(row['max_abs_difference'] for row in rows):.1g} |"
        )
    quantized = [
        row for row in measured["rows"] if "accuracy" in row and row["storage"] == "shared"
    ]
    if quantized:
        lines += [
            "",
            *ACCURACY_INTRODUCTION.splitlines(),
            "",
            "| | " + " | ".join(f"{row['percentage']} %" for row in quantized) + " |",
            "|---|" + "---|" * len(quantized),
        ]
        for label, key in (("in one file", "accuracy"), ("alone", "accuracy_alone")):
            figures = " | ".join(f"{100 * row[key]:.2f}" for row in quantized)
            lines.append(f"| {label} | {figures} |")
    lines += [
        "",
        *MEMORY_INTRODUCTION.splitlines(),
        "",
        "| network | opened | percentage | MB | ratio | ratio of peaks |",
        "|---|---|---|---|---|---|",
    ]
    for row in measured["memory"]:
        lines.append(
            f"| {row['network']} | {row['what'].replace('_', ' ')} | {row['percentage']} | "
            f"{row['resident'] / 1e6:.1f} | {row['ratio']:.2f} | {row['peak_ratio']:.2f} |"
        )
    machine = ", ".join(f"{key} {value}" for key, value in measured["machine"].items())
    return [*lines, "", f"Machine: {machine}."]


def main(_):
    if FLAGS.runs:
        runs = [
            json.loads(path.read_text())
            for path in sorted(pathlib.Path(FLAGS.runs).glob("*/results.json"))
        ]
        MNIST.write_text(json.dumps(runs, indent=1) + "\n")
    by_method = collections.defaultdict(list)
    for run in json.loads(MNIST.read_text()):
        by_method[run["flags"]["method"]].append(run)
    by_method = {method: by_method[method] for method in LABELS}
    page = ["# Results", "", "Written by `docs/make_results.py` from committed JSON.", ""]
    page += mnist_section(by_method) + steps_section() + one_file_section()
    (DOCS / "results.md").write_text("\n".join(page) + "\n")
    plots.accuracy_over_cost(
        {
            LABELS[method]: [(int(p), COST[p], mean(runs, p) / 100) for p in POINTS]
            for method, runs in by_method.items()
        },
        DOCS / "images" / "mnist_accuracy_over_cost.png",
        "MNIST, 784-100-100-10, mean of three seeds",
    )


if __name__ == "__main__":
    app.run(main)
