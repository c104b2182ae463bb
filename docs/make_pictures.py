"""Draws the pictures of the pages; what they show of a network is computed by the library.

python docs/make_pictures.py
"""

import pathlib

import keras
import pictures  # the file next to this one
from absl import app
from matplotlib.patches import FancyBboxPatch

import keras_tesla as kt
from keras_tesla import graph
from keras_tesla.narrowing.plan import narrow

IMAGES = pathlib.Path(__file__).parent / "images"
COMPUTED, LEFT_OUT = pictures.COLORS[0], pictures.INK
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
        computed = channels if width is None else len(width)
        found.append((step.call.operation.name, computed, channels))
    return found


def draw_network(path, percentage):
    """The products that are left at a percentage."""
    tesla = kt.TESLA(network(), [100, percentage] if percentage < 100 else [100])
    columns = computed_channels(tesla.network, percentage)
    with pictures.figure(path, 4.2, 3.9) as figure:
        axes = figure.add_subplot()
        for x, (_, computed, channels) in enumerate(columns):
            if x:
                _draw_products(axes, x, columns[x - 1][1], computed)
            for i in range(channels):
                color = COMPUTED if i < computed else LEFT_OUT
                face = color if i < computed else "none"
                axes.plot(x, -i, "o", color=color, markerfacecolor=face, markersize=8)
            axes.text(x, -10.0, f"{computed} of {channels}", ha="center", va="center", fontsize=9)
        cost = kt.analysis.multiply_adds(tesla.at(percentage))
        axes.set_title(f"{percentage} %: {cost} multiply-adds")
        axes.set_xticks(range(len(columns)), [n.split()[0] for n, *_ in columns], fontsize=9)
        axes.set_yticks([])
        axes.set_xlim(-0.4, len(columns) - 0.6)
        axes.set_ylim(-10.6, 0.6)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)


def _draw_products(axes, x, inputs, outputs):
    for i in range(inputs):
        for j in range(outputs):
            axes.plot([x - 1, x], [-i, -j], color=COMPUTED, alpha=0.5, linewidth=0.8, zorder=0)


def draw_profiles(path):
    """The coefficients of every named profile, one panel each."""
    with pictures.figure(path, 5.2, 5.6) as figure:
        panels = figure.subplots(4, 2, sharex=True, sharey=True)
        for axes, name in zip(panels.flat, PROFILES, strict=False):
            axes.bar(range(TERMS), kt.profiles.get(name)(TERMS), width=0.8, color=COMPUTED)
            axes.set_title(f'"{name}"', fontsize=10)
            axes.set_ylim(0, 1.05)
        for axes in panels.flat[len(PROFILES) :]:
            axes.set_visible(False)
        panels[-2, -1].tick_params(labelbottom=True)  # nothing is below it
        figure.supxlabel(f"channel i of n = {TERMS}", fontsize=10)
        figure.supylabel("coefficient", fontsize=10)


# Of docs/how_it_is_built.md: (name, what it is, place), and the arrows between them.
STAGES = {
    "model": ("a Keras model", 0, 1),
    "graph": ("its calls, as data", 1, 1),
    "layouts": ("where channels lie\n(kinds/)", 2, 1),
    "plan": ("what a percentage\ncomputes and reads", 3, 1),
    "live layers": ("stock layers that run\non slices: training", 4, 2),
    "TESLA": ("losses, aggregation,\none update", 5, 2),
    "extracted": ("plain Keras, weights\nof its own: at(p)", 4, 0),
    "converted": ("one .tflite\na percentage", 5, 0),
    "merged file": ("each weight once,\nrun and compared", 6, 0),
    "phone": ("Python, Kotlin, page:\na percentage a call", 7, 0),
}
ARROWS = [
    *(("model", "graph"), ("graph", "layouts"), ("layouts", "plan"), ("plan", "live layers")),
    *(("live layers", "TESLA"), ("plan", "extracted"), ("extracted", "converted")),
    *(("converted", "merged file"), ("merged file", "phone")),
]


def draw_stages(path):
    """From a model to a file on the phone."""
    with pictures.figure(path, 12.5, 4) as figure:
        axes = figure.add_subplot()
        for name, (what, x, y) in STAGES.items():
            text = {"ha": "center", "zorder": 2}
            axes.text(x, y + 0.13, name, va="bottom", fontsize=11, weight="bold", **text)
            axes.text(x, y + 0.07, what, va="top", fontsize=8, **text)
            corner, size = (x - 0.39, y - 0.25), (0.78, 0.62)
            shape = {"boxstyle": "round,pad=0.02", "facecolor": "none", "edgecolor": COMPUTED}
            axes.add_patch(FancyBboxPatch(corner, *size, **shape, zorder=1))
        for begin, end in ARROWS:
            (_, x, y), (_, to_x, to_y) = STAGES[begin], STAGES[end]
            ends = {"xytext": (x + 0.42, y + 0.06), "xy": (to_x - 0.42, to_y + 0.06)}
            arrow = {"arrowstyle": "->", "color": pictures.INK}
            axes.annotate("", **ends, arrowprops=arrow, zorder=0)
        axes.set_xlim(-0.5, 7.5)
        axes.set_ylim(-0.4, 2.5)
        axes.set_axis_off()


def main(_):
    draw_stages(IMAGES / "stages.svg")
    for percentage in (100, 50):
        draw_network(IMAGES / f"network_at_{percentage}.svg", percentage)
    draw_profiles(IMAGES / "profiles.svg")


if __name__ == "__main__":
    app.run(main)
