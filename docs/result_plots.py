"""The plots of docs/results.md, from the committed JSON of the runs.

Each function of `PLOTS` draws one file of docs/images/; `docs/make_tables.py` calls them.
"""

import cifar_tables  # the files next to this one
import pictures
import result_tables as results

SIZE = 5.2, 4.4  # inches: letters stay legible where a phone shrinks it
MARKERS = "os^Dvp*X"
# Multiply-adds of 784-100-100-10 at p percent: p of the first layer's outputs are needed.
MNIST_COST = {p: 784 * int(p) + int(p) * 100 + 1000 for p in results.POINTS}
MNIST_ROWS = ("individual", "recipe", "tesla", "idp")


def mnist_accuracy_over_cost(path):
    """Accuracy over multiply-adds; the percentages stand below the first line."""
    by_row = results.mnist_runs()
    with pictures.figure(path, *SIZE) as figure:
        axes = _axes(figure, "multiply-adds of an image, thousand", "test accuracy, %")
        for row, marker in zip(MNIST_ROWS, MARKERS, strict=False):
            points = [(cost / 1e3, results.mean(by_row[row], p)) for p, cost in MNIST_COST.items()]
            axes.plot(*zip(*points, strict=True), marker + "-", label=results.LABELS[row], ms=4)
        for p, cost in MNIST_COST.items():
            if p in ("10", "25", "50", "75", "100"):
                at = cost / 1e3, results.mean(by_row["individual"], p)
                axes.annotate(f"{p} %", at, (0, 7), textcoords="offset points", ha="center")
        axes.set_ylim(top=102)
        _legend(figure)


def cifar10_accuracy_over_cost(path):
    """Accuracy over multiply-adds at the trained percentages; the original method trains one."""
    with pictures.figure(path, *SIZE) as figure:
        axes = _axes(figure, "multiply-adds of an image, million", "test accuracy, %")
        runs, points, rows = cifar_tables.rows_of("cifar10", narrow=True)
        for run, (label, *_), marker in zip(runs, rows, MARKERS, strict=False):
            flags = run["flags"]
            shown = points if flags["method"] == "idp" else sorted(flags["percentages"], key=int)
            costs = [run["multiply_adds"][p] / 1e6 for p in shown]
            accuracies = [100 * run["accuracy"][p] for p in shown]
            axes.plot(costs, accuracies, marker + "-", label=label, ms=5)
        _legend(figure)


def applications_latency(path):
    """What a percentage takes of the time at 100 %, network by network."""
    measured = results.read(results.APPLICATIONS)["rows"]
    with pictures.figure(path, *SIZE) as figure:
        axes = _axes(figure, "multiply-adds, of those at 100 %", "latency, of that at 100 %")
        for row, marker in zip(measured, MARKERS, strict=False):
            if row["latency"] is None:
                continue
            costs, times = row["multiply_adds"].values(), row["latency"].values()
            axes.plot(costs, times, marker + "-", label=row["network"], ms=5)
        axes.plot([0.01, 1], [0.01, 1], ":", color=pictures.INK, label="in proportion")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        _legend(figure, columns=3)


def step_time(path):
    """A training step at ten percentages over a plain one."""
    steps = [
        (key, {method: row["ratio_to_plain_step"] for method, row in of_method.items()})
        for key, of_method in results.by_step(results.read(results.STEPS))
        if key[1] == 10
    ]
    drawn = {"tesla": "TESLA", "separate": "separate networks", "mask": "masks"}
    with pictures.figure(path, 5.2, 4.6) as figure:
        axes = _axes(figure, "time of a step at ten percentages, of a plain one's", "")
        for number, (method, label) in enumerate(drawn.items()):
            bars = [(i, ratios[method]) for i, (_, ratios) in enumerate(steps) if method in ratios]
            places = [i + 0.27 * (number - 1) for i, _ in bars]
            axes.barh(places, [ratio for _, ratio in bars], 0.25, label=label)
        names = [f"{key[0]}, {key[2]}{', XLA' * (key[3] == 'yes')}" for key, _ in steps]
        axes.set_yticks(range(len(steps)), names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        _legend(figure, columns=3)


def _axes(figure, x, y):
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    return axes


def _legend(figure, columns=1):
    figure.legend(loc="outside lower center", ncols=columns)


PLOTS = {
    f.__name__: f
    for f in (mnist_accuracy_over_cost, cifar10_accuracy_over_cost, applications_latency, step_time)
}
