"""The tables of the CIFAR runs in docs/results.md, from committed JSON; no figure in them is typed.

Each function of `TABLES` returns the lines of one table; `docs/make_tables.py` writes them.
"""

import result_tables as results  # the file next to this one

CIFAR = results.DOCS / "results" / "cifar_vgg16.json"


def rows_of(dataset, narrow):
    """Returns the rows of our runs and their percentages."""
    runs = [
        run
        for run in results.read(CIFAR)
        if run["flags"]["dataset"] == dataset and (run["flags"]["width"] < 1) == narrow
    ]
    points = sorted({p for run in runs for p in run["accuracy"]}, key=int)
    rows = []
    for run in runs:
        flags = run["flags"]
        label = {"idp": f"original IDP, {flags['profile']} profile", "tesla": "TESLA, task by task"}
        name = label.get(flags["method"], flags["method"])
        name += " with distillation" if flags["distillation"] else ""
        name += ", private gains and biases" if flags.get("private_affine") else ""
        trained = ["100"] if flags["method"] == "idp" else flags["percentages"]
        figures = [f"{100 * run['accuracy'][p]:.1f}" for p in points]
        marked = [f"**{x}**" if p in trained else x for p, x in zip(points, figures, strict=True)]
        rows.append([f"{name}, {_epochs(flags)} epochs", *marked])
    return runs, points, rows


def _epochs(flags):
    """How many there were: with growing images, those at each size."""
    sizes = flags.get("image_sizes")
    return sum(int(x.split(":")[1]) for x in sizes) if sizes else flags["epochs"]


def cifar10_quarter():
    """VGG-16 of a quarter width at a short budget."""
    runs, points, rows = rows_of("cifar10", narrow=True)
    flags = runs[0]["flags"]
    share = flags["steps_per_epoch"] * flags["batch_size"] / 45_000
    cost = [f"{runs[0]['multiply_adds'][p] / 1e6:.1f}" for p in points]
    return [
        f"An epoch is {flags['steps_per_epoch']} batches of {flags['batch_size']}, {share:.2f} of "
        "a pass over the images.",
        "",
        *results.table(
            ["method", *(f"{p} %" for p in points)],
            [["multiply-adds, million", *cost], *rows],
        ),
    ]


def _full(dataset):
    """VGG-16 at full width."""
    runs, points, rows = rows_of(dataset, narrow=False)
    cost = [f"{runs[0]['multiply_adds'][p] / 1e6:.1f}" for p in points]
    return results.table(
        ["method", *(f"{p} %" for p in points)], [["multiply-adds, million", *cost], *rows]
    )


def _files(dataset):
    """The network of `_full` in one file of its trained percentages."""
    runs, *_ = rows_of(dataset, narrow=False)
    rows = []
    for weights, file in runs[0]["files"].items():
        alone = file["standalone_bytes"]
        rows.append(
            [
                weights,
                f"{file['bytes']:,}",
                f"{alone['100']:,}",
                f"{file['bytes'] / alone['100']:.3f}",
                f"{file['max_abs_difference']:.1e}",
                f"`{file['sha256'][:16]}`",
            ]
        )
    columns = ["weights", "bytes", "bytes of 100 % alone", "ratio", "difference", "SHA-256"]
    return results.table(columns, rows)


TABLES = {
    "cifar10_full": lambda: _full("cifar10"),
    "cifar10_files": lambda: _files("cifar10"),
    "cifar10_quarter": cifar10_quarter,
    "cifar100_files": lambda: _files("cifar100"),
    "cifar100_full": lambda: _full("cifar100"),
}
