"""A table of what a model costs at each percentage."""

import math

import keras
import numpy as np

from keras_tesla import graph as graphs
from keras_tesla.graph import Call
from keras_tesla.kinds.registry import multiply_adds_of
from keras_tesla.narrowing.plan import narrow
from keras_tesla.percentages import check_percentages
from keras_tesla.training import checks
from keras_tesla.training.tesla import TESLA

_QUANTITIES = ("Multiply-adds", "Parameters", "Bytes")


def summary(model, percentages=None, print_fn=print):
    """Prints the cost of each layer and of the model at some percentages.

    Three blocks, a row for each layer and a column for each percentage:

    - multiply-adds of one example, as `keras_tesla.analysis.multiply_adds` counts them,
    - parameters: the numbers in the weights, as `keras.Model.count_params` counts them,
    - bytes: parameters times the size of their dtype.

    They are those of `TESLA.at(percentage)`. For a layer called twice, multiply-adds count twice
    and parameters once; parameters count twice if the two calls have different widths, because
    extraction then makes two layers of it. Layers with neither are left out, and so are the
    selections that extraction puts before a layer that reads a part of a masked tensor. Where
    nobody knows the multiply-adds of a layer, as of one of your own, its row says "not counted" and
    the total is that of the others.

    Args:
        model: A `TESLA`, or a built Functional or Sequential model with an `IDPDense` or
            `IDPConv2D`, with all dimensions but the batch known.
        percentages: Iterable of distinct ints, 1..100. Default: those of the `TESLA`; for another
            model 100, 75, 50, 25.
        print_fn: Function that takes the table as one string.

    Raises:
        ValueError: If the model is subclassed, not built or without an IDP layer, a dimension is
            unknown, a percentage is invalid, or a batch normalization has no statistics for it.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)), keras.layers.Dense(4, name="first"), IDPDense(2, name="second")],
    ...     name="mlp")
    >>> kt.analysis.summary(model, percentages=[100, 50])
    Model: "mlp"
    <BLANKLINE>
    Multiply-adds    100 %     50 %
    -------------------------------
    first               32       16
    second               8        4
    -------------------------------
    Total               40       20
    of 100 %       100.0 %   50.0 %
    <BLANKLINE>
    Parameters       100 %     50 %
    -------------------------------
    first               36       18
    second              10        6
    -------------------------------
    Total               46       24
    of 100 %       100.0 %   52.2 %
    <BLANKLINE>
    Bytes            100 %     50 %
    -------------------------------
    first              144       72
    second              40       24
    -------------------------------
    Total              184       96
    of 100 %       100.0 %   52.2 %
    """
    if isinstance(model, TESLA):
        name, graph = model.network.name, model.graph
        percentages = model.percentages if percentages is None else percentages
    else:
        graph = graphs.read(model)
        checks.check_graph(graph)
        name = model.name
        percentages = (100, 75, 50, 25) if percentages is None else percentages
    percentages = check_percentages(percentages)
    operations: dict[int, Call] = {}  # {id of a layer or operation: its first call}
    for call in graph.calls:
        operations.setdefault(id(call.operation), call)
    uncounted: set[int] = set()
    # Axes: operation, percentage, quantity.
    costs = np.stack([_costs(graph, p, operations, uncounted) for p in percentages], axis=1)
    rows = [
        (call.name, of_operation, key in uncounted)
        for (key, call), of_operation in zip(operations.items(), costs, strict=True)
        if of_operation.any() or key in uncounted
    ]
    print_fn(_table(name, percentages, rows))


def _costs(graph, percentage, operations, uncounted):
    """Returns the multiply-adds, parameters and bytes of each operation, shape (operations, 3).

    Args:
        graph: The calls of the model.
        percentage: Int.
        operations: The ids of all layers and operations of the graph.
        uncounted: To this the ids of those are added whose multiply-adds are not known.
    """
    costs = {key: np.zeros(3, "int64") for key in operations}
    stored = set()
    plan = narrow(graph, percentage)
    for step in plan.steps:
        layer, narrowed = step.call.operation, step.narrowed
        multiplied = None if narrowed is None else narrowed.weights()
        count = multiply_adds_of(plan.narrowed_call(step), multiplied)
        if count is None:
            uncounted.add(id(layer))
        costs[id(layer)][0] += count or 0
        weights = getattr(layer, "weights", []) if multiplied is None else multiplied.values()
        if step.extracted_as in stored:
            continue
        stored.add(step.extracted_as)
        for weight in weights:
            count = math.prod(weight.shape)
            dtype = np.dtype(keras.backend.standardize_dtype(weight.dtype))
            costs[id(layer)][1:] += count, count * dtype.itemsize
    return np.stack(list(costs.values()))


def _table(name, percentages, rows):
    blocks = []
    for quantity, title in enumerate(_QUANTITIES):
        counts = [
            (name, of_layer[:, quantity], unknown and quantity == 0)
            for name, of_layer, unknown in rows
        ]
        total = sum(of_layer for _, of_layer, _ in counts)
        blocks.append(
            [
                (title, [f"{p} %" for p in percentages]),
                None,  # a rule
                *(
                    (layer, ["not counted" if unknown else f"{n:,}" for n in of_layer])
                    for layer, of_layer, unknown in counts
                ),
                None,
                ("Total", [f"{n:,}" for n in total]),
                (f"of {percentages[0]} %", [f"{100 * n / total[0]:.1f} %" for n in total]),
            ]
        )
    lines = [line for block in blocks for line in block if line]
    first = max(len(label) for label, _ in lines)
    # Columns are of equal width over all blocks, with two spaces between them.
    width = 2 + max(len(cell) for _, cells in lines for cell in cells)

    def text(line):
        if line is None:
            return "-" * (first + width * len(percentages))
        label, cells = line
        return label.ljust(first) + "".join(cell.rjust(width) for cell in cells)

    return "\n\n".join([f'Model: "{name}"', *("\n".join(map(text, block)) for block in blocks)])
