"""The standard TFLite metadata of a file: what its inputs and outputs are."""

import numpy as np

from keras_tesla.tflite.files import standard_metadata
from keras_tesla.tflite.files.standard_metadata import Subgraph, Tensor
from keras_tesla.tflite.graphs import flatbuffer, merge

ENTRY = "TFLITE_METADATA"
_CHOICE = "Percentage of the dot-product terms; the next higher one of the file serves it."


def pack(model, name: str, version: str, inputs: dict, normalization, labels) -> bytes:
    """Returns the metadata of a model, which says the same of each of its signatures.

    Args:
        model: The schema's object.
        name: Name of the network.
        version: Of keras_tesla.
        inputs: {input name: array of typical inputs}, whose range is told.
        normalization: {input name: (mean, std)}, floats or tuples of them; or None.
        labels: List of strings or None: names of what the last axis of the outputs counts.
    """
    said = {n: _input(x, (normalization or {}).get(n)) for n, x in inputs.items()}
    said[merge.PERCENTAGE] = {"description": _CHOICE, "minimum": (1.0,), "maximum": (100.0,)}
    signatures = {s.subgraphIndex: s for s in model.signatureDefs}
    subgraphs = []
    for index, subgraph in enumerate(model.subgraphs):
        if index in signatures:
            signature = signatures[index]
            subgraphs.append(
                Subgraph(
                    flatbuffer.text(signature.signatureKey),
                    inputs=_tensors(subgraph, subgraph.inputs, signature.inputs, said.get),
                    outputs=_tensors(
                        subgraph,
                        subgraph.outputs,
                        signature.outputs,
                        lambda _: {"labels": labels is not None},
                    ),
                )
            )
        else:
            subgraphs.append(Subgraph(flatbuffer.text(subgraph.name)))
    description = "One network at several percentages of its dot-product terms."
    return standard_metadata.pack(name, description, version, subgraphs)


def _tensors(subgraph, order, named, say):
    """{name: `Tensor`} in the order of the subgraph's tensors, which is what readers go by."""
    names = {int(entry.tensorIndex): flatbuffer.text(entry.name) for entry in named}
    return {
        names[index]: Tensor(
            tuple(int(n) for n in subgraph.tensors[index].shape), **say(names[index])
        )
        for index in order
    }


def _input(typical, normalization):
    made: dict[str, tuple[float, ...]] = {}
    if np.isfinite(typical).all():
        made = {"minimum": (float(typical.min()),), "maximum": (float(typical.max()),)}
    if normalization is not None:
        made["mean"], made["std"] = (
            tuple(float(v) for v in np.atleast_1d(part)) for part in normalization
        )
    return made
