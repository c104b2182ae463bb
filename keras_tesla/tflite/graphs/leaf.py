"""The graph of one percentage on its way into a file of many."""

import dataclasses

from keras_tesla.tflite.graphs import flatbuffer
from keras_tesla.tflite.graphs.flatbuffer import Graph
from keras_tesla.tflite.graphs.nested import Shells


@dataclasses.dataclass(frozen=True)
class Nested:
    """A weight that is stored as the beginning of a nested one.

    Args:
        stored: The bytes of the whole weight in stored order.
        shells: The corners.
        level: Int, which corner.
    """

    stored: bytes
    shells: Shells
    level: int

    @property
    def data(self) -> bytes:
        """The bytes of this corner."""
        return self.stored[: self.shells.size(self.level)]


class Leaf:
    """What the converter made of a percentage.

    Args:
        percentage: Int, 1..100.
        content: Bytes of a .tflite file with one subgraph and one signature.

    Attributes:
        graph: The `Graph`.
        inputs: {name: index of a tensor}.
        outputs: Likewise.
        nested: {index of a weight's tensor: `Nested`}.
        own: Indices of the constants that need an address of their own. XNNPACK recognises a packed
            weight by the addresses of weight and bias, combined so that corners of one weight are
            not told apart: their biases must be.
    """

    def __init__(self, percentage: int, content: bytes):
        model = flatbuffer.unpack(content)
        self.percentage = percentage
        (subgraph,) = model.subgraphs
        self.graph = Graph(model, subgraph)
        (signature,) = model.signatureDefs
        self.inputs = _named(signature.inputs)
        self.outputs = _named(signature.outputs)
        self._separate_outputs()
        self.nested: dict[int, Nested] = {}
        self.own: set[int] = set()
        for tensor in self.graph.tensors:
            tensor.name = _short(flatbuffer.text(tensor.name))
            tensor.shapeSignature = None  # the batch size is fixed
            if tensor.quantization is not None and tensor.quantization.scale is None:
                tensor.quantization = None  # the converter writes an empty table

    def _separate_outputs(self):
        """Copies an output that is an input, or another output too: runtimes mix those up."""
        taken = set(self.inputs.values())
        for name, index in self.outputs.items():
            if index in taken:
                copied = self.graph.add_like(name, self.graph.tensors[index])
                self.graph.add_reshape(index, copied, at=len(self.graph.operators))
                self.outputs[name] = index = copied
            taken.add(index)
        self.graph.subgraph.outputs = list(self.outputs.values())


def _short(name):
    """`conv_1/Relu;conv_1/Add;..` as `conv_1/Relu`."""
    return name.split(";")[0]


def _named(entries):
    return {flatbuffer.text(entry.name): int(entry.tensorIndex) for entry in entries}
