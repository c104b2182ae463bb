"""Draws the pictures of docs/concepts.md from the library itself; nothing in them is typed.

python docs/make_pictures.py
"""

import pathlib

import keras
from absl import app
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import keras_tesla as kt
from keras_tesla import graph
from keras_tesla.narrowing.plan import narrow

IMAGES = pathlib.Path(__file__).parent / "images"
COMPUTED, LEFT_OUT = "tab:blue", "0.8"
PROFILES = ("all_one", "linear", "half_exponential", "step", "impulse", "harmonic", "exponential")
TERMS = 20


def network() -> keras.Model:
    """A network that is small enough to draw every product."""
    return keras.Sequential(
        [
            keras.Input((8,), name="input"),
            keras.layers.Dense(10, activation="relu", name="Dense"),
            kt.layers.IDPDense(10, activation="relu", name="IDPDense"),
            kt.layers.IDPDense(10, activation="relu", name="IDPDense 2"),
            kt.layers.IDPDense(4, name="IDPDense 3"),
        ]
    )


def computed_channels(model, percentage) -> list[tuple[str, int, int]]:
    """Returns (layer, channels that are computed, channels) by the library's narrowing plan."""
    found = [("input", model.input_shape[-1], model.input_shape[-1])]
    for step in narrow(graph.read(model), percentage).steps:
        (width,) = step.widths.outputs
        (tensor,) = step.call.output_tensors
        channels = tensor.shape[-1]
        found.append((step.call.operation.name, channels if width is None else width, channels))
    return found


def draw_network(path):
    """Two panels: all products, and those that are left at 30 %."""
    model = network()
    tesla = kt.TESLA(model, [100, 30])
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, percentage in zip(figure.subplots(1, 2), tesla.percentages, strict=True):
        columns = computed_channels(model, percentage)
        for x, (_, computed, channels) in enumerate(columns):
            if x:
                _draw_products(axes, x, columns[x - 1][1], computed)
            for i in range(channels):
                color = COMPUTED if i < computed else LEFT_OUT
                face = color if i < computed else "white"
                axes.plot(x, -i, "o", color=color, markerfacecolor=face, markersize=11)
            axes.text(x, -10.0, f"{computed} of {channels}", ha="center", va="center", fontsize=9)
        cost = kt.analysis.multiply_adds(tesla.at(percentage))
        axes.set_title(f"{percentage} %: {cost} multiply-adds")
        names = [name.split()[0] for name, *_ in columns]
        axes.set_xticks(range(len(columns)), names, fontsize=9)
        axes.set_yticks([])
        axes.set_xlim(-0.4, len(columns) - 0.6)
        axes.set_ylim(-10.6, 0.6)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    figure.savefig(path, dpi=100)


def _draw_products(axes, x, inputs, outputs):
    for i in range(inputs):
        for j in range(outputs):
            axes.plot([x - 1, x], [-i, -j], color=COMPUTED, alpha=0.35, linewidth=0.8, zorder=0)


def draw_profiles(path):
    """The coefficients of every named profile, one panel each."""
    figure = Figure(figsize=(10, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 4, sharex=True, sharey=True)
    for axes, name in zip(panels.flat, PROFILES, strict=False):
        axes.bar(range(TERMS), kt.profiles.get(name)(TERMS), width=0.8, color=COMPUTED)
        axes.set_title(f'"{name}"', fontsize=10)
        axes.set_ylim(0, 1.05)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels.flat[len(PROFILES) :]:
        axes.set_visible(False)
    panels[0, -1].tick_params(labelbottom=True)  # nothing is below it
    figure.supxlabel(f"channel i of n = {TERMS}", fontsize=10)
    figure.supylabel("coefficient", fontsize=10)
    figure.savefig(path, dpi=100)


def main(_):
    draw_network(IMAGES / "narrowed_network.png")
    draw_profiles(IMAGES / "profiles.png")


if __name__ == "__main__":
    app.run(main)
