"""Checking a flatbuffer before a runtime trusts it."""

import math

import numpy as np

from keras_tesla.tflite.graphs import flatbuffer
from keras_tesla.tflite.graphs.flatbuffer import Op


class StructureError(ValueError):
    """A flatbuffer that no runtime should open."""


def check(content: bytes) -> list[list[str]]:
    """Checks all that a runtime takes on trust, and that all operators are built into LiteRT.

    Every table is read, every index must exist, every constant must lie in the file and have the
    bytes of its tensor.

    Args:
        content: The bytes of a .tflite file.

    Returns:
        The names of the operators of each subgraph, in execution order.

    Raises:
        StructureError: What is wrong.
    """
    try:
        model = flatbuffer.unpack(content)
    except Exception as error:  # whatever reading wild offsets runs into
        raise StructureError(f"The flatbuffer cannot be read: {error}") from error
    for number, buffer in enumerate(model.buffers):
        if buffer.offset > 1 and buffer.offset + buffer.size > len(content):
            raise StructureError(f"Buffer {number} ends after the file.")
    known = {v: k for k, v in vars(Op).items() if isinstance(v, int)}
    operators = []
    for table in model.subgraphs:
        for tensor in table.tensors:
            _check_tensor(model, tensor)
        indices = [*table.inputs, *table.outputs]
        for operator in table.operators:
            indices += [t for t in [*operator.inputs, *operator.outputs] if t != -1]
            for (_, field), index in flatbuffer.called(operator).items():
                _check_index(index, model.subgraphs, field)
            _check_index(operator.opcodeIndex, model.operatorCodes, "operator code")
        for index in indices:
            _check_index(index, table.tensors, "tensor")
        subgraph = flatbuffer.Subgraph(model, table)
        names = [known.get(subgraph.op(operator), "unknown") for operator in subgraph.operators]
        for name in names:
            if name in ("CUSTOM", "unknown"):
                raise StructureError(f"The operator {name} is not built into LiteRT.")
        operators.append(names)
    for signature in model.signatureDefs or ():
        _check_index(signature.subgraphIndex, model.subgraphs, "subgraph of a signature")
    return operators


def _check_index(index, sequence, what):
    if not 0 <= index < len(sequence):
        raise StructureError(f"There is no {what} number {index}.")


def _check_tensor(model, tensor):
    _check_index(tensor.buffer, model.buffers, "buffer")
    buffer = model.buffers[tensor.buffer]
    size = buffer.size if buffer.offset > 1 else len(flatbuffer.data_of(buffer))
    if size and tensor.sparsity is None:
        shape = () if tensor.shape is None else tensor.shape
        wanted = math.prod(int(n) for n in shape) * np.dtype(flatbuffer.dtype(tensor)).itemsize
        if size != wanted:
            raise StructureError(
                f"Constant {flatbuffer.text(tensor.name)!r} needs {wanted} bytes and has {size}."
            )
