"""The graph of one percentage before it is merged with those of others."""

import dataclasses

from keras_tesla.channels import Selection
from keras_tesla.tflite.graphs import flatbuffer
from keras_tesla.tflite.graphs.flatbuffer import Subgraph
from keras_tesla.tflite.graphs.nested import NestedLayout


@dataclasses.dataclass(frozen=True)
class NestedWeight:
    """A weight that is stored as the beginning of a nested one.

    Args:
        stored: The bytes of the whole weight in stored order.
        layout: The leading blocks that are nested.
        level: Int, which of them this weight is.
    """

    stored: bytes
    layout: NestedLayout
    level: int

    @property
    def data(self) -> bytes:
        """The bytes of this leading block."""
        return self.stored[: self.layout.size(self.level)]


class PercentageGraph:
    """The graph that the converter made of one percentage.

    Args:
        percentage: Int, 1..100.
        content: Bytes of a .tflite file with one signature.
        selections: Which channels the calls of the network read, filter and compute, from
            `Plan.selections`.

    Attributes:
        selections: As given.
        subgraph: Its operators and tensors.
        callees: The further subgraphs that its operators run, such as the body of a WHILE, in the
            order of the file: they are subgraphs 1, 2, ..
        inputs: {name: index of a tensor}.
        outputs: Likewise.
        nested: {index of a weight's tensor: `NestedWeight`}.
        unshared: Indices of constants that must not share an address with another constant. XNNPACK
            identifies a packed weight by a combination of the addresses of weight and bias that is
            equal for leading blocks of one weight, so their biases must differ.
    """

    def __init__(self, percentage: int, content: bytes, selections: dict | None = None):
        model = flatbuffer.unpack(content)
        self.percentage = percentage
        self.selections: dict[tuple, Selection] = selections or {}
        self.subgraph, *self.callees = (Subgraph(model, table) for table in model.subgraphs)
        (signature,) = model.signatureDefs
        self.inputs = _named(signature.inputs)
        self.outputs = _named(signature.outputs)
        self._separate_outputs()
        self.nested: dict[int, NestedWeight] = {}
        self.unshared: set[int] = set()
        for tensor in self.subgraph.tensors:
            tensor.shapeSignature = None  # the batch size is fixed; what a loop collects grows
        for tensor in (t for each in (self.subgraph, *self.callees) for t in each.tensors):
            tensor.name = _short(flatbuffer.text(tensor.name))
            if tensor.quantization is not None and tensor.quantization.scale is None:
                tensor.quantization = None  # the converter writes an empty table

    def _separate_outputs(self):
        """Copies an output that is an input, or another output too: runtimes mix those up."""
        taken = set(self.inputs.values())
        for name, index in self.outputs.items():
            if index in taken:
                copied = self.subgraph.add_like(name, self.subgraph.tensors[index])
                self.subgraph.add_reshape(index, copied, at=len(self.subgraph.operators))
                self.outputs[name] = index = copied
            taken.add(index)
        self.subgraph.table.outputs = list(self.outputs.values())


def _short(name):
    """`conv_1/Relu;conv_1/Add;..` as `conv_1/Relu`."""
    return name.split(";")[0]


def _named(entries):
    return {flatbuffer.text(entry.name): int(entry.tensorIndex) for entry in entries}
