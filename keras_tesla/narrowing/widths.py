"""A table of the channels that each layer computes at each percentage."""

import keras

from keras_tesla.graph import Graph
from keras_tesla.narrowing.plan import narrow

_NAME = 30


def table(graph: Graph, percentages) -> str:
    """Returns a row for each call of a layer and a column for each percentage.

    A cell is the number of computed channels; for an incomplete layer that reads fewer than all,
    also how many it reads, as in `50>10`. `-`: the layer is not needed. `all`: it has no channels
    that could be left out.

    Args:
        graph: The calls of a model.
        percentages: Ints, 1..100.
    """
    plans = [narrow(graph, percentage) for percentage in percentages]
    steps = [{id(step.call): step for step in plan.steps} for plan in plans]
    rows = [
        (
            _shortened(call.name),
            [_cell(plan, of.get(id(call))) for plan, of in zip(plans, steps, strict=True)],
        )
        for call in graph.calls
        if isinstance(call.operation, keras.Layer)
    ]
    rows.insert(0, ("Channels", [f"{p} %" for p in percentages]))
    first = max(len(name) for name, _ in rows)
    width = 2 + max(len(cell) for _, cells in rows for cell in cells)
    lines = [name.ljust(first) + "".join(c.rjust(width) for c in cells) for name, cells in rows]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def computed_channels(plan) -> dict[str, str]:
    """Returns {name of a layer: `"8 of 16"` channels} for those that are computed at a percentage.

    `"all"`: the layer has no channels that could be left out. Of the calls of a layer the last one
    counts.

    Args:
        plan: The plan of that percentage.
    """
    found = {}
    for step in plan.steps:
        layout = plan.layouts[step.call.output_tensors[0].index]
        computed = step.widths.outputs[0]
        name = step.call.name
        if layout is None:
            found[name] = "all"
        else:
            count = layout.count if computed is None else len(computed)
            found[name] = f"{count} of {layout.count}"
    return found


def _cell(plan, step) -> str:
    if step is None:
        return "-"
    layout = plan.layouts[step.call.output_tensors[0].index]
    if layout is None:
        return "all"
    computed = step.widths.outputs[0]
    computed = layout.count if computed is None else len(computed)
    reads = [len(w) for w in step.widths.inputs if w is not None]
    terms = getattr(step.call.operation, "terms", None)
    incomplete = terms is not None and len(reads) == 1 and reads[0] < terms
    return f"{reads[0]}>{computed}" if incomplete else f"{computed}"


def _shortened(name) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 2] + ".."
