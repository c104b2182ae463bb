"""The standard TFLite metadata of a file: what its inputs and outputs are."""

import numpy as np

from keras_tesla.tflite.files import standard_metadata
from keras_tesla.tflite.files.standard_metadata import SubgraphInfo, TensorInfo
from keras_tesla.tflite.graphs import flatbuffer, merge

ENTRY = "TFLITE_METADATA"
_PERCENTAGE = "Percentage of the dot-product terms; it is rounded up to the next one of the file."


def pack(model, name: str, version: str, inputs: dict, normalization, labels) -> bytes:
    """Returns the metadata of a model, the same for each of its signatures.

    Args:
        model: The schema's object.
        name: Name of the network.
        version: Of keras_tesla.
        inputs: {input name: array of typical inputs}, whose range is described.
        normalization: {input name: (mean, std)}, floats or tuples of them; or None.
        labels: List of strings or None: names of the numbers along the last axis of the outputs.
    """
    inputs_info = {n: _input_info(x, (normalization or {}).get(n)) for n, x in inputs.items()}
    inputs_info[merge.PERCENTAGE] = {
        "description": _PERCENTAGE,
        "minimum": (1.0,),
        "maximum": (100.0,),
    }
    signatures = {s.subgraphIndex: s for s in model.signatureDefs}
    subgraphs = []
    for index, subgraph in enumerate(model.subgraphs):
        if index in signatures:
            signature = signatures[index]
            subgraphs.append(
                SubgraphInfo(
                    flatbuffer.text(signature.signatureKey),
                    inputs=_tensors(subgraph, subgraph.inputs, signature.inputs, inputs_info.get),
                    outputs=_tensors(
                        subgraph,
                        subgraph.outputs,
                        signature.outputs,
                        lambda _: {"labels": labels is not None},
                    ),
                )
            )
        else:
            subgraphs.append(SubgraphInfo(flatbuffer.text(subgraph.name)))
    description = "One network at several percentages of its dot-product terms."
    return standard_metadata.pack(name, description, version, subgraphs)


def _tensors(subgraph, order, named, info):
    """{name: `TensorInfo`}, in the order by which readers identify the tensors."""
    names = {int(entry.tensorIndex): flatbuffer.text(entry.name) for entry in named}
    return {
        names[index]: TensorInfo(
            tuple(int(n) for n in subgraph.tensors[index].shape), **info(names[index])
        )
        for index in order
    }


def _input_info(typical, normalization):
    made: dict[str, tuple[float, ...]] = {}
    if np.isfinite(typical).all():
        made = {"minimum": (float(typical.min()),), "maximum": (float(typical.max()),)}
    if normalization is not None:
        made["mean"], made["std"] = (
            tuple(float(v) for v in np.atleast_1d(part)) for part in normalization
        )
    return made
