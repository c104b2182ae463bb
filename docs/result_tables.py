"""The tables of docs/results.md, from the committed JSON of the runs; no figure in it is typed.

Each function of `TABLES` returns the lines of one table; `docs/make_tables.py` writes them.
"""

import collections
import json
import pathlib
import statistics

DOCS = pathlib.Path(__file__).parent
MNIST = DOCS / "results" / "mnist_table.json"
EXPORTED = DOCS / "results" / "mnist_mlp.json"
STEPS = DOCS.parent / "benchmarks" / "training_step.json"
STEP_MEMORY = DOCS.parent / "benchmarks" / "step_memory.json"
APPLICATIONS = DOCS.parent / "benchmarks" / "applications.json"
FOREIGN = DOCS.parent / "benchmarks" / "foreign_models.json"
CONVERTED = DOCS / "results" / "convert_pretrained.json"
QUANTIZED = DOCS / "results" / "quantization_aware.json"
ONE_FILE = DOCS.parent / "benchmarks" / "one_file.json"
SOAK = DOCS.parent / "benchmarks" / "soak.json"
KILL = DOCS.parent / "benchmarks" / "kill.json"
POINTS = [str(p) for p in range(10, 101, 5)]
LABELS = {
    "idp": "original IDP, harmonic profile",
    "multi_profile": "multi-profile IDP, harmonic profile",
    "tesla": "TESLA, task by task",
    "tesla_trainable": "TESLA, trainable coefficients",
    "r_tesla": "R-TESLA",
    "r_tesla_trainable": "R-TESLA, trainable coefficients",
    "joint": "joint, 10 percentages",
    "joint_cosine": "joint, 10 percentages, cosine",
    "joint_all": "joint, 19 percentages, cosine",
    "joint_weighted": "joint, 19 percentages, cosine, 10 % counts 4 times",
    "joint_distilled": "joint, 19 percentages, cosine, half distillation",
    "sandwich_distilled": "sandwich rule, distillation, cosine",
    "recipe": "joint, 19 percentages, private numbers, attenuated gradients",
    "individual": "individual networks, cosine",
    "individual_norm": "individual networks, batch normalization, cosine",
    "joint_long": "joint, 19 percentages, cosine",
    "weighted_long": "joint, 19 percentages, cosine, 10 % counts 4 times",
    "distilled_long": "joint, 19 percentages, cosine, half distillation",
    "recipe_long": "joint, 19 percentages, private numbers, attenuated gradients",
    "individual_long": "individual networks, cosine",
    "individual_norm_long": "individual networks, batch normalization, cosine",
}
COMPARED = (
    *("joint_weighted", "recipe", "individual", "individual_norm"),
    *("distilled_long", "recipe_long", "individual_long", "individual_norm_long"),
)
# Means of the TESLA paper over the same points.
PAPER = {"idp": 88.37, "tesla": 94.67, "r_tesla_trainable": 95.475, "individual": 96.163}


def table(heads, rows) -> list[str]:
    """The lines of a Markdown table, in the element that docs/site.css knows figures by."""
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in (heads, *rows)]
    lines.insert(1, f"|{'---|' * len(heads)}")
    return ['<div class="figures" markdown>', "", *lines, "", "</div>"]


def machine_line(measured):
    """What a benchmark ran on."""
    return f"Machine: {', '.join(f'{k} {v}' for k, v in measured['machine'].items())}."


def read(path):
    """What a JSON file holds."""
    return json.loads(path.read_text())


# MNIST.


def mnist_runs():
    """Returns {row of the table: its runs, one for each seed}."""
    by_row = collections.defaultdict(list)
    for run in read(MNIST):
        by_row[run["row"]].append(run)
    return by_row


def mean(runs, point):
    """Mean test accuracy over the seeds, in percent."""
    return 100 * statistics.mean(run["accuracy"][point] for run in runs)


def _mnist(of_long_budget):
    by_row, rows = mnist_runs(), []
    for row, label in LABELS.items():
        if row not in by_row or row.endswith("_long") != of_long_budget:
            continue
        runs = by_row[row]
        means = [statistics.mean(100 * run["accuracy"][p] for p in POINTS) for run in runs]
        spread = f" +- {statistics.stdev(means):.2f}" if len(means) > 1 else ""
        points = [f"{mean(runs, p):.1f}" for p in ("10", "30", "50", "100")]
        average = f"{statistics.mean(means):.2f}{spread}"
        rows.append([label, average, *points, len(runs)])
    return table(["method", "mean", "10 %", "30 %", "50 %", "100 %", "seeds"], rows)


def mnist():
    """All rows at the paper's budget."""
    return _mnist(of_long_budget=False)


def mnist_long():
    """Those at a longer one."""
    return _mnist(of_long_budget=True)


def mnist_paper():
    """The means that the paper's text gives, too."""
    by_row = mnist_runs()
    rows = []
    for row, paper in PAPER.items():
        ours = statistics.mean(mean(by_row[row], p) for p in POINTS)
        rows.append([LABELS[row], f"{paper:.1f}", f"{ours:.1f}"])
    return table(["method", "paper", "here"], rows)


def mnist_points():
    """The best rows against individual networks, point by point."""
    by_row, rows = mnist_runs(), []
    for row in COMPARED:
        if row in by_row:
            budget = "long" if row.endswith("_long") else "paper's budget"
            figures = [f"{mean(by_row[row], p):.1f}" for p in POINTS]
            rows.append([f"{LABELS[row]} ({budget})", *figures])
    return table(["", *(f"{p} %" for p in POINTS)], rows)


def exported():
    """What the exported files of the task-wise runs lose."""
    differences = [
        100 * abs(run["tflite_accuracy"][p] - run["accuracy"][p])
        for run in read(EXPORTED)
        for p in run.get("tflite_accuracy", {})
    ]
    return [
        f"The exported .tflite files ({len(differences)}: ten percentages of each task-wise run of "
        "`examples/mnist_mlp.py`)",
        f"differ from Keras by at most {max(differences):.2f} points of test accuracy.",
    ]


# Other networks.


def converted():
    """The converted and fine-tuned network."""
    (run,) = read(CONVERTED)
    points = list(run["multiply_adds"])
    epochs = {"fine-tuned": run["epochs"]["fine-tuned"], "from scratch": run["epochs"]["plain"]}
    rows = [["multiply-adds, million", *(f"{x / 1e6:.2f}" for x in run["multiply_adds"].values())]]
    for name, found in run["accuracy"].items():
        label = f"{name}, {epochs[name]} epochs" if name in epochs else name
        rows.append([label, *(f"{100 * found['test'][p]:.1f}" for p in points)])
    heads = ["", *(f"{p} %" for p in points)]
    return [*table(heads, rows), "", _command("convert_pretrained", run)]


def _command(script, run):
    """What ran, as the flags that were not at their default are not known: all that matter."""
    flags = run["flags"]
    words = [f"--{name}={flags[name]}" for name in ("dataset", "width", "epochs") if name in flags]
    return f"Run as `examples/{script}.py {' '.join(words)}`."


def quantized():
    """The network in int8."""
    (run,) = read(QUANTIZED)
    points = sorted(run["accuracy"]["float32"], key=int, reverse=True)
    rows = [
        [name, *(f"{100 * found[p]:.2f}" for p in points)]
        for name, found in run["accuracy"].items()
    ]
    heads = ["", *(f"{p} %" for p in points)]
    return [*table(heads, rows), "", _command("quantization_aware", run)]


def applications():
    """The converted networks of keras.applications."""
    measured = read(APPLICATIONS)
    points = list(measured["rows"][0]["multiply_adds"])[1:]
    rows = []
    for row in measured["rows"]:
        ratios = (row["multiply_adds"], row["latency"])
        figures = [f"{x[p]:.3f}" if x else "-" for p in points for x in ratios]
        million = row["multiply_adds_at_100"] / 1e6
        rows.append([row["network"], f"{million:.1f}", *figures])
    heads = [f"{what}, {p} %" for p in points for what in ("multiply-adds", "latency")]
    (size,) = {row["size"] for row in measured["rows"]}
    return [
        *table(["network", "million, 100 %", *heads], rows),
        "",
        f"Images of {size}x{size}. {machine_line(measured)}",
    ]


def foreign_models():
    """Networks that were not written for the library, through all of it."""
    measured = read(FOREIGN)
    rows = []
    for row in measured["rows"]:
        errors = row["errors"]
        cells = [_outcome(row, step) for step in ("to_idp", "equal", "multiply_adds")]
        cells += [_outcome(row, step) for step in ("at", "fit", "export", "load")]
        gone = "{} of {}".format(*row["gone"]) if "gone" in row else "-"
        left = ", ".join(f"{kind} {count}" for kind, count in row.get("left", {}).items())
        uncounted = row.get("not_counted")
        left += f"; not counted: {len(uncounted)}" if uncounted else ""
        said = "; ".join(f"{step}: {_first_sentence(text)}" for step, text in errors.items())
        rows.append([row["model"], *cells, gone, left.removeprefix("; "), said])
    heads = ["network", "to_idp", "equal", "multiply-adds", "at(50)", "fit", "export", "load"]
    heads += ["gone", "left whole", "error"]
    return [*table(heads, rows), "", machine_line(measured)]


def _outcome(row, step):
    if step in row["errors"]:
        return "refused" if row["errors"][step].startswith("ValueError") else "failed"
    found = row.get(step, "-")
    return f"{found:.2g}" if isinstance(found, float) and step != "multiply_adds" else str(found)


def _first_sentence(text):
    return text.split(". ")[0].replace("|", "/")


# The training step.


STEP = ["network", "percentages", "backend", "XLA"]


def step_time():
    """What a step costs over a plain one."""
    measured, rows = read(STEPS), []
    for key, of_method in by_step(measured):
        tesla, separate = of_method["tesla"], of_method["separate"]["ratio_to_plain_step"]
        ratios = tesla["mac_ratio"], tesla["ratio_to_plain_step"], separate
        rows.append([*key, *(f"{r:.2f}" for r in ratios), f"{tesla['plain_step_ms']:.1f}"])
    heads = [*STEP, "multiply-adds", "TESLA", "separate", "plain step, ms"]
    return [*table(heads, rows), "", machine_line(measured)]


def step_masks():
    """What it would cost with masks, where that was run."""
    rows = [
        [*key, *(f"{of_method[m]['ratio_to_plain_step']:.2f}" for m in ("tesla", "mask"))]
        for key, of_method in by_step(read(STEPS))
        if "mask" in of_method
    ]
    return table([*STEP, "TESLA", "masks"], rows)


def step_us_net():
    """Beside layers that slice their weights in plain PyTorch: time, and memory."""
    rows = [
        [*key[:2], what, *(f"{of_method[m]['ratio_to_plain_step']:.2f}" for m in methods)]
        for what, path in (("time", STEPS), ("peak memory", STEP_MEMORY))
        for key, of_method in by_step(read(path))
        if set(methods := ("tesla", "us_net")) <= set(of_method)
    ]
    return table(["network", "percentages", "what", "TESLA", "US-Net"], rows)


def step_memory():
    """What it holds over a plain one."""
    measured, rows = read(STEP_MEMORY), []
    for key, of_method in by_step(measured):
        tesla = of_method["tesla"]
        ratio = f"{tesla['ratio_to_plain_step']:.2f}"
        rows.append([*key, ratio, f"{tesla['peak_bytes'] / 1e6:.0f}"])
    return [*table([*STEP, "TESLA", "TESLA, MB"], rows), "", machine_line(measured)]


def by_step(measured):
    """Returns pairs (first cells of a table's row, {method: row})."""
    by_step = collections.defaultdict(dict)
    for row in measured["rows"]:
        xla = "yes" if row["jit"] else "no"
        key = row["network"], row["percentages"], row["backend"], xla
        by_step[key][row["method"]] = row
    return by_step.items()


# One file.


def one_file():
    """Bytes and latency of one file for all percentages."""
    measured, by_file = read(ONE_FILE), collections.defaultdict(list)
    for row in measured["rows"]:
        key = row["network"], row["mode"], row["storage"], row["quantization"] or "float32"
        by_file[key].append(row)
    rows = []
    for key, of_file in by_file.items():
        ratios = [row["latency_ratio"] for row in of_file]
        extra = 1e6 * max(row["latency_extra"] for row in of_file)
        error = max(row["max_abs_difference"] for row in of_file)
        figures = f"{of_file[0]['bytes_ratio']:.3f}", f"{max(ratios):.2f}"
        middle = f"{statistics.median(ratios):.2f}"
        rows.append([*key, *figures, middle, f"{extra:.1f}", f"{error:.1g}"])
    heads = ["network", "mode", "storage", "weights", "bytes", "latency", "median"]
    return [*table([*heads, "extra, us", "error"], rows), "", machine_line(measured)]


def one_file_accuracy():
    """What sharing int8 weights costs."""
    rows = [r for r in read(ONE_FILE)["rows"] if "accuracy" in r and r["storage"] == "shared"]
    return table(
        ["", *(f"{row['percentage']} %" for row in rows)],
        [
            [label, *(f"{100 * row[key]:.2f}" for row in rows)]
            for label, key in (("in one file", "accuracy"), ("own file", "accuracy_own_file"))
        ],
    )


def one_file_memory():
    """What an opened file holds."""
    measured = read(ONE_FILE)
    rows = [
        [
            *(row["network"], row["what"].replace("_", " "), row["percentage"]),
            *(f"{row['resident'] / 1e6:.1f}", f"{row['ratio']:.2f}", f"{row['peak_ratio']:.2f}"),
        ]
        for row in measured["memory"]
    ]
    heads = ["network", "opened", "percentage", "MB", "ratio", "ratio of peaks"]
    return [*table(heads, rows), "", machine_line(measured)]


# Reliability.


def soak():
    """An opened file under load."""
    measured, rows = read(SOAK), []
    for row in measured["rows"]:
        memory = row["memory"]
        begin, end = (f"{memory[x] / 1e6:.1f}" for x in ("first", "last"))
        found = f"{row['calls']:,}", row["wrong"], begin, end, f"{memory['slope'] / 1e3:.1f}"
        rows.append([row["network"], f"{row['seconds'] / 60:.0f}", *found])
    heads = ["network", "minutes", "calls", "wrong", "first minute, MB", "last minute, MB"]
    return [*table([*heads, "slope, kB a minute"], rows), "", machine_line(measured)]


def kill_training():
    """Training under kill -9."""
    row = read(KILL)["rows"][0]
    keys = ("kills", "in_a_backup", "ends", "equal", "wrong_task", "failed_starts")
    heads = ["kills", "during a backup", "runs that ended", "with equal weights"]
    heads += ["starts with wrong percentages", "failed starts"]
    return table(heads, [[row[key] for key in keys]])


def kill_export():
    """Export under kill -9."""
    measured = read(KILL)
    keys = ("kills", "absent", "old", "new", "half")
    whole, last_step = measured["rows"][1:]
    rows = [
        [name, *(row[key] for key in keys)]
        for name, row in (("whole", whole), ("last step", last_step))
    ]
    failed = f"Whole exports that failed to start again: {whole['failed_starts']}."
    return [*table(["export", *keys], rows), "", failed, "", machine_line(measured)]


TABLES = {
    f.__name__: f
    for f in (
        *(mnist, mnist_paper, mnist_long, mnist_points, exported, converted),
        *(
            quantized,
            applications,
            foreign_models,
            step_time,
            step_masks,
            step_us_net,
            step_memory,
            one_file,
        ),
        *(one_file_accuracy, one_file_memory, soak, kill_training, kill_export),
    )
}
