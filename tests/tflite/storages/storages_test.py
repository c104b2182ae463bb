"""What each storage puts into a file, and that it takes out again what went in.

The graphs are built by hand, without a converter: at 100 % a product of 8 x 12 weights, at 50 %
one with the first 4 x 6 of them.
"""

import hashlib

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.tflite import runtime
from keras_tesla.tflite.combined_file import write
from keras_tesla.tflite.files import writing
from keras_tesla.tflite.files.header import Header, PercentageHeader
from keras_tesla.tflite.graphs import flatbuffer, merge, structure
from keras_tesla.tflite.graphs.flatbuffer import Op, Type
from keras_tesla.tflite.graphs.percentage_graph import PercentageGraph
from keras_tesla.tflite.standalone import extract
from keras_tesla.tflite.storages import STORAGES

ROWS, COLUMNS = 64, 96
X = np.linspace(-1, 1, COLUMNS, dtype="float32")[None]


def kernel(seed=0):
    return np.random.default_rng(seed).standard_normal((ROWS, COLUMNS)).astype("float32")


def graph(percentage, weight, columns) -> PercentageGraph:
    """y = W (the first `columns` of x)."""
    model = flatbuffer.new_model("test")
    subgraph = flatbuffer.add_subgraph(model, "main")
    x = subgraph.add_tensor("x", (1, columns), Type.FLOAT32)
    w = subgraph.add_tensor("w", weight.shape, Type.FLOAT32, weight)
    y = subgraph.add_tensor("y", (1, len(weight)), Type.FLOAT32)
    subgraph.add_operator(Op.FULLY_CONNECTED, [x, w, -1], [y], schema.FullyConnectedOptionsT())
    subgraph.table.inputs, subgraph.table.outputs = [x], [y]
    model.signatureDefs = [flatbuffer.signature("serving_default", 0, {"x": x}, {"y": y})]
    return PercentageGraph(percentage, flatbuffer.pack(model))


def network(narrow=None):
    narrow = kernel()[: ROWS // 2, : COLUMNS // 2] if narrow is None else narrow
    return [graph(50, np.ascontiguousarray(narrow), COLUMNS // 2), graph(100, kernel(), COLUMNS)]


def file(storage, graphs, unshared_weights=()):
    """The file of the graphs and its header."""
    header = Header(
        mode="signatures",
        storage=storage.name,
        quantization=None,
        name="test",
        versions={},
        inputs={},
        outputs={},
        percentages=tuple(
            PercentageHeader(g.percentage, merge.key(g.percentage), 1) for g in reversed(graphs)
        ),
        unshared_weights=list(unshared_weights),
    )
    draft = write(graphs, merge.merge(graphs, False), storage, header, {}, None)
    return draft, draft.finish(draft.header)


@pytest.mark.parametrize("name", STORAGES)
def test_a_standalone_file_computes_what_went_in(name):
    storage = STORAGES[name]
    assert storage.name == name
    graphs, unshared_weights = storage.rewrite(network(), [], None)
    assert unshared_weights == []
    draft, content = file(storage, graphs)
    structure.check(content)
    whole = runtime.interpreter(content)
    for graph in graphs:
        columns = COLUMNS * graph.percentage // 100
        weight = kernel()[: ROWS * graph.percentage // 100, :columns]
        extracted = extract(content, draft.header.values(), graph.percentage)
        (operators,) = structure.check(extracted)
        assert "DENSIFY" not in operators
        for made, signature in ((runtime.interpreter(extracted), None), (whole, graph)):
            key = None if signature is None else f"p{graph.percentage}"
            got = runtime.run(made, {"x": X[:, :columns]}, key)["y"]
            # float32 sums of 96 products in another order.
            np.testing.assert_allclose(got, X[:, :columns] @ weight.T, atol=1e-4)


@pytest.mark.parametrize(("name", "whole"), [("plain", 1.25), ("shared", 1.0)])
def test_the_weights_take_these_bytes(name, whole):
    """Plain: those of both percentages; shared: those of the highest."""
    storage = STORAGES[name]
    _, content = file(storage, storage.rewrite(network(), [], None)[0])
    places = {(b.offset, b.size) for b in flatbuffer.unpack(content).buffers if b.offset > 1}
    longest = {}
    for offset, size in places:
        longest[offset] = max(size, longest.get(offset, 0))
    biases = 0 if name == "plain" else 4 * (ROWS + ROWS // 2)  # each has an unshared address
    assert sum(longest.values()) == whole * kernel().nbytes + biases


def test_unshared_weights_are_named_by_the_storage_that_shares():
    other = kernel(seed=1)[: ROWS // 2, : COLUMNS // 2]
    assert STORAGES["plain"].rewrite(network(other), [], None)[1] == []
    (weight,) = STORAGES["shared"].rewrite(network(other), [], None)[1]
    assert (weight["weight"], weight["percentage"], weight["bytes"]) == ("w", 50, other.nbytes)
    assert "not the leading block" in weight["reason"]


@pytest.mark.parametrize("quantization", [None, "dynamic_range", "int8"])
def test_only_sharing_needs_float32_beside_a_quantized_percentage(quantization):
    assert not STORAGES["plain"].needs_floats(quantization)
    assert STORAGES["shared"].needs_floats(quantization) == (quantization is not None)


@pytest.mark.parametrize("name", STORAGES)
def test_a_part_is_known_by_its_digest(name):
    storage = STORAGES[name]
    draft, content = file(storage, storage.rewrite(network(), [], None)[0])
    for entry in draft.header.percentages:
        extracted = extract(content, draft.header.values(), entry.percentage)
        assert len(extracted) == entry.standalone.bytes
        assert hashlib.sha256(extracted).hexdigest() == entry.standalone.sha256
    damaged = bytearray(content)
    damaged[
        entry.standalone.copies[0][1] if name == "plain" else entry.standalone.nested_weights[0][1]
    ] ^= 1
    with pytest.raises(ValueError, match="is not what was exported"):
        extract(damaged, draft.header.values(), entry.percentage)


def test_a_storage_that_nobody_knows_is_refused():
    draft, content = file(STORAGES["plain"], network())
    with pytest.raises(ValueError, match="100 % of the file is not what was exported"):
        extract(content, {**draft.header.values(), "storage": "blocks"}, 100)


def test_a_draft_runs_before_it_is_finished():
    """LiteRT reads neither the header nor the digest, so what was run is what is finished."""
    storage = STORAGES["shared"]
    draft, content = file(storage, storage.rewrite(network(), [], None)[0])
    runs = [
        runtime.run(runtime.interpreter(c), {"x": X}, "p100")["y"] for c in (draft.content, content)
    ]
    np.testing.assert_array_equal(*runs)
    changed = [i for i, (a, b) in enumerate(zip(draft.content, content, strict=True)) if a != b]
    end = len(content) - 22
    assert all(end - 64 <= i < end or draft.place.start <= i < draft.place.stop for i in changed)
    assert writing.Draft is type(draft)
