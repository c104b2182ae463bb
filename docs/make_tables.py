"""Writes the tables of figures in the guides from committed JSON; no figure in them is typed.

    python docs/make_tables.py

A table stands between `<!-- table NAME -->` and `<!-- end NAME -->` of a page in docs/; NAME is a
function below.
"""

import json
import pathlib
import re
import statistics

import make_results  # the file beside this one
from absl import app

DOCS = pathlib.Path(__file__).parent
COMPRESSION = DOCS.parent / "benchmarks" / "model_compression.json"
MISSING = "not measured"
# Row of examples/mnist_table.py: what one writes for it.
METHODS = {
    "joint_cosine": "no callback, a cosine schedule",
    "joint_weighted": "`aggregation` with 4 for 10 %",
    "joint_distilled": "`InPlaceDistillation(weight=0.5)`",
    "sandwich_distilled": "`RandomPercentages()`, distillation",
    "tesla": "`TaskWiseEarlyStopping`",
    "tesla_trainable": "and `AlternatingProfiles`",
    "r_tesla": '`TaskWiseEarlyStopping(order="random")`',
    "r_tesla_trainable": "and `AlternatingProfiles`",
    "idp": "`TESLA(model, [100])`, a profile",
    "multi_profile": "`PerRange`, `MultiProfile`",
    "individual": "a network for each percentage",
}
# (mode, storage, quantization) of an export, and the operations that a file of this percentage
# alone does not have.
CONSTRUCTIONS = [
    (mode, storage, quantization, operations)
    for mode, storage, operations in (
        ("per_percentage", "", "none"),
        ("signatures", "shared", "DENSIFY"),
        ("signatures", "plain", "none"),
        ("percentage_input", "shared", "DENSIFY, IF"),
        ("percentage_input", "plain", "IF"),
    )
    for quantization in (None, "int8", "dynamic_range")
]
MEASURED_MEMORY = ("percentage_input", "shared", None)  # the file that one_file.py opens alone
COMPRESSED = {
    ("full", 100): "full network",
    ("full_int8", 100): "full network, int8 after training",
    ("tesla", 50): "TESLA 50 %",
    ("tesla_tuned", 50): "TESLA 50 %, tuned alone",
    ("pruned", 50): "full network pruned to the same",
    ("tesla", 30): "TESLA 30 %",
    ("pruned", 30): "full network pruned to the same",
    ("tesla_int8", 50): "TESLA 50 %, int8 after training",
    ("tesla_qat", 50): "TESLA 50 %, trained for int8",
    ("pruned_2_4", 100): "two of four",
    ("clustered", 100): "{clusters} clusters",
}


def methods():
    """The training methods at the paper's budget."""
    by_row = make_results.mnist_runs()
    lines = [
        "| method | how | mean | at 10 % | at 50 % | at 100 % |",
        "|---|---|---|---|---|---|",
    ]
    for row, how in METHODS.items():
        runs = by_row[row]
        every = statistics.mean(make_results.mean(runs, p) for p in make_results.POINTS)
        points = " | ".join(f"{make_results.mean(runs, p):.1f}" for p in ("10", "50", "100"))
        lines.append(f"| {make_results.LABELS[row]} | {how} | {every:.1f} | {points} |")
    return lines


def steps():
    """What a training step costs."""
    measured = json.loads(make_results.STEPS.read_text())
    lines = [
        "| network | percentages | backend | XLA | multiply-adds | a step | ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in measured["rows"]:
        if row["method"] == "tesla" and row["network"] in ("mlp", "cnn"):
            lines.append(
                f"| {row['network']} | {row['percentages']} | {row['backend']} | "
                f"{'yes' if row['jit'] else 'no'} | {row['mac_ratio']:.2f} | "
                f"{row['ratio_to_plain_step']:.2f} | {row['step_ms']:.1f} |"
            )
    return [*lines, "", make_results.machine_line(measured)]


def constructions_cnn():
    """All constructions of a file, for the CNN."""
    return _constructions("cnn")


def constructions_mlp():
    """Those that were measured for the MLP."""
    return _constructions("mlp", only_measured=True)


def _constructions(network, only_measured=False):
    measured = json.loads(make_results.ONE_FILE.read_text())
    lines = [
        "| mode | storage | weights | MB | call, us | over own file | memory, MB "
        "| other operations |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for mode, storage, quantization, operations in CONSTRUCTIONS:
        rows = {
            row["percentage"]: row
            for row in measured["rows"]
            if (row["network"], row["mode"], row["storage"], row["quantization"])
            == (network, mode, storage, quantization)
        }
        if only_measured and not rows:
            continue
        size = calls = ratio = memory = MISSING
        if rows:
            ratios = [row["latency_ratio"] for row in rows.values()]
            size = f"{rows[100]['bytes'] / 1e6:.2f} ({rows[100]['bytes_ratio']:.2f})"
            calls = " / ".join(_microseconds(rows[p]["latency"]) for p in (100, 50, 10))
            ratio = f"{statistics.median(ratios):.2f} ({max(ratios):.2f})"
        if mode == "per_percentage":
            ratio = "1"
        if (mode, storage, quantization) == MEASURED_MEMORY:
            memory = " / ".join(
                f"{row['resident'] / 1e6:.1f}"
                for row in measured["memory"]
                if row["network"] == network and row["what"] == "alone"
            )
        cells = mode, storage, quantization or "float32", size, calls, ratio, memory, operations
        lines.append(f"| {' | '.join(cell.replace(' ', '&nbsp;') for cell in cells)} |")
    return [*lines, "", make_results.machine_line(measured)]


def _microseconds(seconds):
    """Three digits at least, and no exponent."""
    figure = 1e6 * seconds
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.3g}"


def compressed():
    """A percentage beside pruning, clustering and int8."""
    measured = json.loads(COMPRESSION.read_text())
    rows = {(row["method"], row["percentage"]): row for row in measured["rows"]}
    lines = [
        "| | multiply-adds | accuracy | bytes | zipped | latency |",
        "|---|---|---|---|---|---|",
    ]
    for key, label in COMPRESSED.items():
        row = rows[key]
        lines.append(
            f"| {label.format(**measured)} | {row['multiply_adds']:.3g} | {row['accuracy']:.3f} | "
            f"{row['bytes']} | {row['zipped']} | {row['latency_ratio']:.2f} |"
        )
    return [*lines, "", make_results.machine_line(measured)]


TABLES = {f.__name__: f for f in (methods, steps, constructions_cnn, constructions_mlp, compressed)}


def filled(text):
    """Returns a page with its tables written anew."""

    def table(found):
        head, name, tail = found.groups()
        return "\n".join([head, "", *TABLES[name](), "", tail])

    return re.sub(r"(<!-- table (\w+) -->)\n.*?(<!-- end \2 -->)", table, text, flags=re.S)


def main(_):
    for path in DOCS.glob("*.md"):
        path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    app.run(main)
