"""How the pictures of the pages are drawn: for light and dark pages, the same bytes every time."""

import contextlib

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# The same contrast, 4 to 1, against white and against the theme's dark ground.
INK = "#7f838c"
# Each at least 3 to 1 against both.
COLORS = ("#2a8bd6", "#d9761a", "#339955", "#df4f47", "#9673d3", "#a4705c", "#d161a8", INK)
STYLE = {
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
    **{f"axes.{part}color": INK for part in ("edge", "label", "title")},
    "axes.prop_cycle": matplotlib.cycler(color=COLORS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": INK,
    "grid.alpha": 0.25,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "savefig.transparent": True,
    "svg.hashsalt": "keras_tesla",  # the names of its parts are random otherwise
}


@contextlib.contextmanager
def figure(path, width, height):
    """Gives a figure of a size in inches and writes it to an SVG file."""
    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(drawn)
        yield drawn
        drawn.savefig(path, metadata={"Date": None})
