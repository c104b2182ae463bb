"""The tables of figures in the guides, from committed JSON; no figure in them is typed.

Each function of `TABLES` returns the lines of one table; `docs/make_tables.py` writes them.
"""

import statistics

import result_tables as results  # the file next to this one

COMPRESSION = results.DOCS.parent / "benchmarks" / "model_compression.json"
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
# (mode, storage, quantization) of an export, and the operations that a file of only this
# percentage does not have.
CONSTRUCTIONS = [
    (mode, storage, quantization, operations)
    for mode, storage, operations in (
        ("signatures", "shared", "DENSIFY"),
        ("signatures", "plain", "none"),
        ("percentage_input", "shared", "DENSIFY, IF"),
        ("percentage_input", "plain", "IF"),
    )
    for quantization in (None, "int8", "dynamic_range")
]
COMPRESSED = {
    ("full", 100): "full network",
    ("full_int8", 100): "full network, int8 after training",
    ("tesla", 50): "TESLA 50 %",
    ("tesla_tuned", 50): "TESLA 50 %, fine-tuned at 50 % only",
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
    by_row, rows = results.mnist_runs(), []
    for row, how in METHODS.items():
        runs = by_row[row]
        every = statistics.mean(results.mean(runs, p) for p in results.POINTS)
        points = [f"{results.mean(runs, p):.1f}" for p in ("10", "50", "100")]
        rows.append([results.LABELS[row], f"{every:.1f}", *points, how])
    return results.table(["method", "mean", "10 %", "50 %", "100 %", "how"], rows)


def steps():
    """What a training step costs."""
    measured = results.read(results.STEPS)
    rows = [
        [
            *(row["network"], row["percentages"], row["backend"], "yes" if row["jit"] else "no"),
            *(f"{row['mac_ratio']:.2f}", f"{row['ratio_to_plain_step']:.2f}"),
            f"{row['step_ms']:.1f}",
        ]
        for row in measured["rows"]
        if row["method"] == "tesla" and row["network"] in ("mlp", "cnn")
    ]
    heads = ["network", "percentages", "backend", "XLA", "multiply-adds", "a step", "ms"]
    return [*results.table(heads, rows), "", results.machine_line(measured)]


def constructions_cnn():
    """The constructions of a file that were measured for the CNN."""
    return _constructions("cnn")


def constructions_mlp():
    """Those that were measured for the MLP."""
    return _constructions("mlp")


def _constructions(network):
    measured, lines = results.read(results.ONE_FILE), []
    for mode, storage, quantization, operations in CONSTRUCTIONS:
        rows = {
            row["percentage"]: row
            for row in measured["rows"]
            if (row["network"], row["mode"], row["storage"], row["quantization"])
            == (network, mode, storage, quantization)
        }
        if not rows:
            continue
        ratios = [row["latency_ratio"] for row in rows.values()]
        size = f"{rows[100]['bytes'] / 1e6:.2f} ({rows[100]['bytes_ratio']:.2f})"
        calls = " / ".join(_microseconds(rows[p]["latency"]) for p in (100, 50, 10))
        ratio = f"{statistics.median(ratios):.2f} ({max(ratios):.2f})"
        lines.append([mode, storage, quantization or "float32", size, calls, ratio, operations])
    heads = ["mode", "storage", "weights", "MB", "call, us", "over own file"]
    return [
        *results.table([*heads, "other operations"], lines),
        "",
        results.machine_line(measured),
    ]


def _microseconds(seconds):
    """Three digits at least, and no exponent."""
    figure = 1e6 * seconds
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.3g}"


def compressed():
    """A percentage compared with pruning, clustering and int8."""
    measured, lines = results.read(COMPRESSION), []
    rows = {(row["method"], row["percentage"]): row for row in measured["rows"]}
    for key, label in COMPRESSED.items():
        row = rows[key]
        figures = f"{row['multiply_adds']:.3g}", f"{row['accuracy']:.3f}", row["bytes"]
        latency = f"{row['latency_ratio']:.2f}"
        lines.append([label.format(**measured), *figures, row["zipped"], latency])
    heads = ["", "multiply-adds", "accuracy", "bytes", "zipped", "latency"]
    return [*results.table(heads, lines), "", results.machine_line(measured)]


TABLES = {f.__name__: f for f in (methods, steps, constructions_cnn, constructions_mlp, compressed)}
