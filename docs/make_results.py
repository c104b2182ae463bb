"""Writes docs/results.md and its plots from the JSON of the runs; no figure in it is typed.

    python docs/make_results.py --mnist=out/mnist_table --cifar=out/vgg

collects `*/*/results.json` (MNIST) and `*/results.json` (CIFAR) of those folders first; without
them the committed JSON is used.
"""

import collections
import json
import pathlib
import statistics

from absl import app, flags

from keras_tesla.analysis import plots

FLAGS = flags.FLAGS
flags.DEFINE_string("mnist", None, "Folder of examples/mnist_table.py.")
flags.DEFINE_string("cifar", None, "Folder with the folders of examples/cifar_vgg16.py.")
flags.DEFINE_string("converted", None, "Folder with that of examples/convert_pretrained.py.")
flags.DEFINE_string("quantized", None, "Folder of examples/quantization_aware.py.")

DOCS = pathlib.Path(__file__).parent
MNIST = DOCS / "results" / "mnist_table.json"
CIFAR = DOCS / "results" / "cifar_vgg16.json"
EXPORTED = DOCS / "results" / "mnist_mlp.json"
STEPS = DOCS.parent / "benchmarks" / "training_step.json"
STEP_MEMORY = DOCS.parent / "benchmarks" / "step_memory.json"
APPLICATIONS = DOCS.parent / "benchmarks" / "applications.json"
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
    "individual": "individual networks, cosine",
    "joint_long": "joint, 19 percentages, cosine",
    "weighted_long": "joint, 19 percentages, cosine, 10 % counts 4 times",
    "distilled_long": "joint, 19 percentages, cosine, half distillation",
    "individual_long": "individual networks, cosine",
}
PLOTTED = ("idp", "tesla", "joint_weighted", "individual")
PAPER = {"idp": 88.37, "tesla": 94.67, "r_tesla_trainable": 95.475, "individual": 96.163}
# Multiply-adds of 784-100-100-10 at p percent: p of the first layer's outputs are needed.
COST = {p: 784 * int(p) + int(p) * 100 + 1000 for p in POINTS}

MNIST_INTRODUCTION = """\
## MNIST, the papers' MLP

784-100-100-10, ReLU, incomplete on the inputs of the middle layer, all-one profile where none is
named. Test accuracy in percent; the mean is over 10, 15, 20, .., 100 % (19 points). 6,000 of the
60,000 training images are the validation split, on which every setting was chosen; the test split
was read once a run. Mean and standard deviation are over the seeds. Individual networks are
784-p-p-10, as large as the scalable one is at p percent. How each row is trained stands in
`ROWS` of `examples/mnist_table.py`; `cosine`: Adam 2e-3 falling to zero, otherwise 1e-3."""
CIFAR_INTRODUCTION = """\
## CIFAR-10, VGG-16 of a quarter width

VGG-16 with a quarter of the filters (16 .. 128), on a CPU, one seed, and a short budget: epochs of
{steps_per_epoch} batches of {batch_size}, {share:.2f} of a pass over 45,000 images each. These are
not the figures of the full network: its command is below. Test accuracy in percent; batch
normalization statistics are measured anew for each percentage; the trained ones are bold."""
CONVERTED_INTRODUCTION = """\
## A trained network, converted

A network of inverted residual blocks like MobileNetV2, {width} of its width, trained as usual on
{dataset} ({epochs} epochs in batches of {batch_size}, images shifted and mirrored), converted by
`to_idp`, and trained on at all percentages with in-place distillation for a tenth of the epochs, in
batches of {tune_batch_size} of the images as they are. One seed; test accuracy in percent, batch
normalization statistics measured at each percentage. `from scratch`: the same network trained at
all percentages from the start. Again: `python examples/convert_pretrained.py --from_scratch
--width={width} --epochs={epochs} --percentages={points}`."""
QUANTIZED_INTRODUCTION = """\
## int8 at every percentage

The papers' MLP on {dataset}, trained at ten percentages together, then for {epochs} epochs as
`quantization_aware` makes it; the file is int8 throughout, exported without data. `float32, trained
on`: the model itself after as many epochs more; `post-training`: that one, quantized with
representative data. One seed, test accuracy in percent. Again: `python examples/mnist_mlp.py
--dataset={dataset} --method=joint`, then `python examples/quantization_aware.py
--dataset={dataset} --compare --model=out/mnist_mlp/tesla.keras`."""
APPLICATIONS_INTRODUCTION = """\
## Networks of keras.applications, converted

Made incomplete by `to_idp`, images of {size}x{size}, untrained: multiply-adds and latency of a
.tflite file at a percentage over those at 100 %; one thread, calls by turns, medians of ratios. The
square of the percentage is .250, .090 and .010. Why some are above and one is below it:
[converting](converting.md)."""
STEPS_INTRODUCTION = """\
## A training step

One step at all percentages over one full-width step of plain Keras on the same backend, medians of
rounds by turns. Networks and methods are in `benchmarks/steps.py`: `multiply-adds` is the ratio if
only they counted; `masks` trains the same with zeros in place of slices; `separate` takes a step of
each of the plain networks `tesla.at(p)`; `US-Net` is PyTorch without Keras, layers that slice their
weights and a backward pass for each width, over its own full-width step. What has no row was not
measured."""
STEP_MEMORY_INTRODUCTION = """\
Peak memory of a step over that of a plain step, with the weights and the optimizer's variables and
without the framework. TensorFlow without XLA and PyTorch take the percentages by
[turns](decisions.md#one-percentage-after-the-other); JAX and XLA do not."""

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

SOAK_INTRODUCTION = """\
## Reliability

One opened file, asked for random percentages by several threads at a time; every answer is compared
with Keras'. Memory is the process's resident memory: medians of the first and the last minute, and
the slope of the line through all samples behind the first minute."""
KILL_INTRODUCTION = """\
kill -9 at random moments (`benchmarks/kill.py`). A training run is started again until it ends;
equal weights are, bit for bit, those of a run that nobody killed. An export is made where there is
none or over an older one; `half` is any folder but none, the old or the new one. `last step` kills
a process that does nothing but replace one export by another."""


def mean(runs, point):
    """Mean test accuracy over the seeds, in percent."""
    return 100 * statistics.mean(run["accuracy"][point] for run in runs)


def mnist_table(by_row, rows):
    """One table of some rows of the MNIST runs."""
    lines = [
        "| method | seeds | mean | at 10 % | at 30 % | at 50 % | at 100 % | paper's mean |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        runs = by_row[row]
        means = [statistics.mean(100 * run["accuracy"][p] for p in POINTS) for run in runs]
        spread = f" +- {statistics.stdev(means):.2f}" if len(means) > 1 else ""
        points = " | ".join(f"{mean(runs, p):.1f}" for p in ("10", "30", "50", "100"))
        lines.append(
            f"| {LABELS[row]} | {len(runs)} | {statistics.mean(means):.2f}{spread} | {points} | "
            f"{PAPER.get(row, '')} |"
        )
    return lines


def mnist_section(by_row):
    """The tables of the papers' MLP."""
    exported = json.loads(EXPORTED.read_text())
    differences = [
        100 * abs(run["tflite_accuracy"][p] - run["accuracy"][p])
        for run in exported
        for p in run.get("tflite_accuracy", {})
    ]
    rows = [row for row in LABELS if row in by_row]
    long = [row for row in rows if row.endswith("_long")]
    lines = [
        *MNIST_INTRODUCTION.splitlines(),
        "",
        "At the paper's budget, 10,000 batches of 28:",
        "",
        *mnist_table(by_row, [row for row in rows if row not in long]),
        "",
        "At 20 epochs of all training images (batches of 128):",
        "",
        *mnist_table(by_row, long),
        "",
        "Point by point against individual networks:",
        "",
        "| | " + " | ".join(f"{p} %" for p in POINTS) + " |",
        "|---|" + "---|" * len(POINTS),
    ]
    compared = ("joint_weighted", "individual", "distilled_long", "individual_long")
    for row in (row for row in compared if row in by_row):
        budget = "long" if row.endswith("_long") else "paper's budget"
        figures = " | ".join(f"{mean(by_row[row], p):.1f}" for p in POINTS)
        lines.append(f"| {LABELS[row]} ({budget}) | {figures} |")
    return [
        *lines,
        "",
        f"The exported .tflite files ({len(differences)}: ten percentages of each task-wise run of "
        "`examples/mnist_mlp.py`)",
        f"differ from Keras by at most {max(differences):.2f} points of test accuracy.",
        "",
        "![accuracy over cost](images/mnist_accuracy_over_cost.png)",
        "",
        "Again: `python examples/mnist_table.py --output_dir=out/mnist_table`.",
    ]


def cifar_section():
    """The table of the quarter-width VGG-16."""
    runs = json.loads(CIFAR.read_text())
    flags_ = runs[0]["flags"]
    share = flags_["steps_per_epoch"] * flags_["batch_size"] / 45_000
    points = sorted(runs[0]["accuracy"], key=int)
    lines = [
        "",
        *CIFAR_INTRODUCTION.format(**flags_, share=share).splitlines(),
        "",
        "| method | epochs | " + " | ".join(f"{p} %" for p in points) + " |",
        "|---|---|" + "---|" * len(points),
        "| multiply-adds, million | | "
        + " | ".join(f"{runs[0]['multiply_adds'][p] / 1e6:.1f}" for p in points)
        + " |",
    ]
    for run in runs:
        method, profile = run["flags"]["method"], run["flags"]["profile"]
        label = {"idp": f"original IDP, {profile} profile", "tesla": "TESLA, task by task"}
        name = label.get(method, method) + (
            " with distillation" if run["flags"]["distillation"] else ""
        )
        trained = ["100"] if method == "idp" else run["flags"]["percentages"]
        figures = [f"{100 * run['accuracy'][p]:.1f}" for p in points]
        marked = [f"**{x}**" if p in trained else x for p, x in zip(points, figures, strict=True)]
        lines.append(f"| {name} | {run['flags']['epochs']} | {' | '.join(marked)} |")
    return [
        *lines,
        "",
        "![class activation maps](images/cifar_activation_maps.png)",
        "",
        "Grad-CAM of the network trained at 30 % on validation images, at the third block's last",
        "feature map (8x8 places), for the true class; below it the predicted class. At 100 % the",
        "map covers the object or its telling part. At 30 % it still does but for the airplane,",
        "where sky and ground are left, and the cat, where two points are. The deer has no map",
        "at 50 %.",
        "",
        "The full network on a GPU, not run yet: `KERAS_BACKEND=jax python examples/cifar_vgg16.py",
        "--dataset=cifar100 --method=sandwich --distillation --epochs=200",
        "--percentages=100,90,80,75,70,60,50,40,30,25`.",
    ]


def machine_line(measured):
    """What a benchmark ran on."""
    return f"Machine: {', '.join(f'{k} {v}' for k, v in measured['machine'].items())}."


def converted_section():
    """The table of the converted and fine-tuned network."""
    (run,) = json.loads(CONVERTED.read_text())
    options, points = run["flags"], list(run["multiply_adds"])
    epochs = {"trained on": run["epochs"]["trained on"], "from scratch": run["epochs"]["plain"]}
    lines = [
        "",
        *CONVERTED_INTRODUCTION.format(**options, points=",".join(points)).splitlines(),
        "",
        "| | epochs at all percentages | " + " | ".join(f"{p} %" for p in points) + " |",
        "|---|---|" + "---|" * len(points),
        "| multiply-adds, million | | "
        + " | ".join(f"{run['multiply_adds'][p] / 1e6:.2f}" for p in points)
        + " |",
    ]
    for name, found in run["accuracy"].items():
        figures = " | ".join(f"{100 * found['test'][p]:.1f}" for p in points)
        lines.append(f"| {name} | {epochs.get(name, 0)} | {figures} |")
    return lines


def quantized_section():
    """The table of the network in int8."""
    (run,) = json.loads(QUANTIZED.read_text())
    points = sorted(run["accuracy"]["float32"], key=int, reverse=True)
    lines = [
        "",
        *QUANTIZED_INTRODUCTION.format(**run["flags"]).splitlines(),
        "",
        "| | " + " | ".join(f"{p} %" for p in points) + " |",
        "|---|" + "---|" * len(points),
    ]
    for name, found in run["accuracy"].items():
        lines.append(f"| {name} | " + " | ".join(f"{100 * found[p]:.2f}" for p in points) + " |")
    return lines


def applications_section():
    """The table of the converted networks of keras.applications."""
    measured = json.loads(APPLICATIONS.read_text())
    rows = measured["rows"]
    points = list(rows[0]["multiply_adds"])[1:]
    heads = [f"{what} at {p} %" for p in points for what in ("multiply-adds", "latency")]
    lines = [
        "",
        *APPLICATIONS_INTRODUCTION.format(size=rows[0]["size"]).splitlines(),
        "",
        f"| network | multiply-adds at 100 %, million | {' | '.join(heads)} |",
        "|---|---|" + "---|" * len(heads),
    ]
    for row in rows:
        figures = [f"{row[x][p]:.3f}" for p in points for x in ("multiply_adds", "latency")]
        million = row["multiply_adds_at_100"] / 1e6
        lines.append(f"| {row['network']} | {million:.1f} | {' | '.join(figures)} |")
    return [*lines, "", machine_line(measured)]


def steps_section():
    """The tables of the training step's cost and memory."""
    columns = ("tesla", "mask", "separate", "us_net")
    measured, memory = (json.loads(path.read_text()) for path in (STEPS, STEP_MEMORY))
    lines = [
        "",
        *STEPS_INTRODUCTION.splitlines(),
        "",
        "| network | percentages | backend | XLA | multiply-adds | TESLA | masks | separate | "
        "US-Net | plain step, ms |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, rows in _by_step(measured):
        ratios = [f"{rows[m]['ratio_to_plain_step']:.2f}" if m in rows else "" for m in columns]
        tesla = rows["tesla"]
        lines.append(
            f"| {key} | {tesla['mac_ratio']:.2f} | {' | '.join(ratios)} | "
            f"{tesla['plain_step_ms']:.1f} |"
        )
    lines += [
        "",
        machine_line(measured),
        "",
        *STEP_MEMORY_INTRODUCTION.splitlines(),
        "",
        "| network | percentages | backend | XLA | TESLA | US-Net | TESLA, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, rows in _by_step(memory):
        ratios = [
            f"{rows[m]['ratio_to_plain_step']:.2f}" if m in rows else ""
            for m in ("tesla", "us_net")
        ]
        lines.append(f"| {key} | {' | '.join(ratios)} | {rows['tesla']['peak_bytes'] / 1e6:.0f} |")
    return [*lines, "", machine_line(memory)]


def _by_step(measured):
    """Returns pairs (first cells of a table's row, {method: row})."""
    by_step = collections.defaultdict(dict)
    for row in measured["rows"]:
        xla = "yes" if row["jit"] else "no"
        key = f"{row['network']} | {row['percentages']} | {row['backend']} | {xla}"
        by_step[key][row["method"]] = row
    return by_step.items()


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
    return [*lines, "", machine_line(measured)]


def reliability_section():
    """What the soak and the kills found."""
    soak, kill = json.loads(SOAK.read_text()), json.loads(KILL.read_text())
    lines = [
        "",
        *SOAK_INTRODUCTION.splitlines(),
        "",
        "| network | minutes | calls | wrong | first minute, MB | last minute, MB | "
        "slope, kB a minute |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in soak["rows"]:
        memory = row["memory"]
        lines.append(
            f"| {row['network']} | {row['seconds'] / 60:.0f} | {row['calls']:,} | {row['wrong']} | "
            f"{memory['first'] / 1e6:.1f} | {memory['last'] / 1e6:.1f} | "
            f"{memory['slope'] / 1e3:.1f} |"
        )
    training, export, step = kill["rows"]
    lines += [
        "",
        machine_line(soak),
        "",
        *KILL_INTRODUCTION.splitlines(),
        "",
        "| training | kills | during a backup | runs that ended | with equal weights | "
        "starts with wrong percentages | failed starts |",
        "|---|---|---|---|---|---|---|",
        f"| | {training['kills']} | {training['in_a_backup']} | {training['ends']} | "
        f"{training['equal']} | {training['wrong_task']} | {training['failed_starts']} |",
        "",
        "| export | kills | absent | old | new | half | failed starts |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in (("whole", export), ("last step", step)):
        found = " | ".join(str(row[k]) for k in ("kills", "absent", "old", "new", "half"))
        lines.append(f"| {name} | {found} | {row.get('failed_starts', '')} |")
    return [*lines, "", machine_line(kill)]


def collect(folder, pattern, path):
    """Writes the results of the runs in a folder into one file that is committed."""
    runs = [json.loads(found.read_text()) for found in sorted(pathlib.Path(folder).glob(pattern))]
    path.write_text(json.dumps(runs, indent=1) + "\n")


def mnist_runs():
    """Returns {row of the table: its runs, one for each seed}."""
    by_row = collections.defaultdict(list)
    for run in json.loads(MNIST.read_text()):
        by_row[run["row"]].append(run)
    return by_row


def page():
    """Returns the text of docs/results.md."""
    by_row = mnist_runs()
    lines = ["# Results", "", "Written by `docs/make_results.py` from committed JSON.", ""]
    lines += mnist_section(by_row) + cifar_section() + converted_section() + quantized_section()
    lines += applications_section() + steps_section() + one_file_section() + reliability_section()
    return "\n".join(lines) + "\n"


def main(_):
    if FLAGS.mnist:
        collect(FLAGS.mnist, "*/*/results.json", MNIST)
    if FLAGS.cifar:
        collect(FLAGS.cifar, "*/results.json", CIFAR)
    if FLAGS.converted:
        collect(FLAGS.converted, "results.json", CONVERTED)
    if FLAGS.quantized:
        collect(FLAGS.quantized, "results.json", QUANTIZED)
    (DOCS / "results.md").write_text(page())
    by_row = mnist_runs()
    plots.accuracy_over_cost(
        {
            LABELS[row]: [(int(p), COST[p], mean(by_row[row], p) / 100) for p in POINTS]
            for row in PLOTTED
        },
        DOCS / "images" / "mnist_accuracy_over_cost.png",
        "MNIST, 784-100-100-10 (test split, mean of the seeds)",
    )


if __name__ == "__main__":
    app.run(main)
