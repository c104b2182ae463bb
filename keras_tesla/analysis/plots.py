"""Plots of what a percentage costs and how accurate it is."""

import pathlib

from keras_tesla import extras


def accuracy_over_cost(series: dict, path, title: str = "") -> pathlib.Path:
    """Draws accuracy over multiply-adds, one line for each network.

    Args:
        series: {label: [(percentage, multiply-adds, accuracy 0..1), ..]}. The percentages are
            written over the last one.
        path: Where the PNG goes.
        title: Over the plot.

    Returns:
        The path.
    """
    agg = extras.load("matplotlib.backends.backend_agg", "demo")
    figures = extras.load("matplotlib.figure", "demo")

    figure = figures.Figure(figsize=(7, 4.5), layout="constrained")
    agg.FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for label, points in series.items():
        points = sorted(points)
        axes.plot([m for _, m, _ in points], [100 * a for *_, a in points], "o-", label=label)
    for percentage, cost, accuracy in points[:: 1 + len(points) // 12]:  # names that do not touch
        axes.annotate(
            f"{percentage} %",
            (cost, 100 * accuracy),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    axes.set_xlabel("multiply-adds of one example")
    axes.set_ylabel("accuracy, %")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    if len(series) > 1:
        axes.legend()
    figure.savefig(path, dpi=120)
    return pathlib.Path(path)
