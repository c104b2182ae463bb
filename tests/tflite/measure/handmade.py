"""Small .tflite files built operation by operation, signed like exported ones.

No converter runs, so a test may make many; and they may be such as no export writes.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.tflite.graphs import flatbuffer
from keras_tesla.tflite.graphs.flatbuffer import Op, Type
from tests.tflite import forging


def header(percentages, mode="signatures", **changes):
    """What the file says of itself; `changes` are for every percentage."""
    entries = [
        {
            "percentage": p,
            "signature": f"p{p}",
            "multiply_adds": 4 * p,
            "bytes": 10 * p,
            "accuracy": 0.5 + p / 250,
            "latency": None,
            "max_abs_difference": 0.0,
            **changes,
        }
        for p in percentages
    ]
    return {
        "format": 1,
        "mode": mode,
        "storage": "plain",
        "quantization": None,
        "name": "handmade",
        "inputs": {"x": {"shape": [1, 4], "dtype": "float32"}},
        "outputs": {"y": {"shape": [1, 1], "dtype": "float32"}},
        "percentages": entries,
        "unshared_weights": [],
        "versions": {},
    }


def products(percentages=(100, 50), units=100, **changes) -> bytes:
    """A file in which p % is one product of 4 inputs with `units * p` weights."""
    model = flatbuffer.new_model("handmade")
    for p in percentages:
        graph = flatbuffer.add_subgraph(model, f"p{p}")
        x = graph.add_tensor("x", [1, 4], Type.FLOAT32)
        weight = np.ones((units * p // 4, 4), "float32")
        w = graph.add_tensor("w", weight.shape, Type.FLOAT32, weight)
        y = graph.add_tensor("y", [1, len(weight)], Type.FLOAT32)
        options = schema.FullyConnectedOptionsT()
        graph.add_operator(Op.FULLY_CONNECTED, [x, w, -1], [y], options)
        graph.table.inputs, graph.table.outputs = [x], [y]
        model.signatureDefs.append(
            flatbuffer.signature(f"p{p}", len(model.subgraphs) - 1, {"x": x}, {"y": y})
        )
    return forging.file(model, header(percentages, **changes))


def crashing() -> bytes:
    """A file whose graph calls itself: preparing it overruns the stack of the runtime."""
    model = flatbuffer.new_model("crashing")
    graph = flatbuffer.add_subgraph(model, "main")
    x, y = (graph.add_tensor(name, [1], Type.BOOL) for name in "xy")
    options = schema.IfOptionsT()
    options.thenSubgraphIndex = options.elseSubgraphIndex = 0
    graph.add_operator(Op.IF, [x, x], [y], options)
    graph.table.inputs, graph.table.outputs = [x], [y]
    model.signatureDefs.append(flatbuffer.signature("p100", 0, {"x": x}, {"y": y}))
    values = header([100]) | {"inputs": {"x": {"shape": [1], "dtype": "bool"}}}
    return forging.file(model, values)
