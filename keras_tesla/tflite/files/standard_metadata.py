"""The standard metadata of a .tflite file, which Android's and other tools read.

They describe the inputs and outputs of each subgraph: names, content, how an image is normalized,
the range of values, and which outputs have labels. All inputs and outputs of the first subgraph
must be described; Android's reader refuses the file otherwise.

Reference:
    https://github.com/tensorflow/tflite-support, `metadata/metadata_schema.fbs`, version 1.5.0
"""

import dataclasses

import flatbuffers
import numpy as np

from keras_tesla.tflite.files import archive

_IDENTIFIER = b"M001"
_PARSER = "1.0.0"  # the schema that has all fields below

# The fields of the schema's tables, in the order of their slots. A union takes two: type and value.
_FIELDS = {
    "ModelMetadata": "name description version subgraph_metadata author license associated_files "
    "min_parser_version",
    "SubGraphMetadata": "name description input_tensor_metadata output_tensor_metadata",
    "TensorMetadata": "name description dimension_names content process_units stats "
    "associated_files",
    "Content": "content_properties_type content_properties range",
    "FeatureProperties": "",
    "ImageProperties": "color_space default_size",
    "ImageSize": "width height",
    "ProcessUnit": "options_type options",
    "NormalizationOptions": "mean std",
    "Stats": "max min",
    "AssociatedFile": "name description type",
}
_SLOTS = {table: fields.split() for table, fields in _FIELDS.items()}

# Values of the schema's enumerations and unions.
_TENSOR_AXIS_LABELS = np.int8(2)
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = np.uint8(1), np.uint8(2)
_NORMALIZATION_OPTIONS = np.uint8(1)
_COLOR_SPACES = {3: np.int8(1), 1: np.int8(2)}  # {channels: RGB or GRAYSCALE}


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """The description of an input or output. Tuples have one number, or one for each channel.

    Args:
        shape: Tuple of ints, with the batch.
        description: A sentence.
        mean: Tuple of floats: the network takes `(x - mean) / std`. Empty: not given.
        std: Likewise, above zero.
        minimum: Tuple of floats: the smallest value. Empty: not given.
        maximum: Likewise the largest.
        labels: Bool, whether the numbers along the last axis belong to the lines of `labels.txt`.
    """

    shape: tuple[int, ...]
    description: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    minimum: tuple[float, ...] = ()
    maximum: tuple[float, ...] = ()
    labels: bool = False

    def __post_init__(self):
        for pair in (("mean", "std"), ("minimum", "maximum")):
            values = [np.asarray(getattr(self, name), "float64") for name in pair]
            fit = values[0].shape == values[1].shape and values[0].shape in self._sizes()
            if not fit or not np.isfinite(values).all():
                raise ValueError(
                    f"`{pair[0]}` and `{pair[1]}` must both be empty, or hold one finite number, "
                    f"or one for each channel of a tensor of shape {self.shape}. Received: "
                    f"{getattr(self, pair[0])} and {getattr(self, pair[1])}"
                )
        if not all(value > 0 for value in self.std):
            raise ValueError(f"`std` must be above zero. Received: {self.std}")
        if not all(a <= b for a, b in zip(self.minimum, self.maximum, strict=True)):
            raise ValueError(
                "`minimum` must not be above `maximum`. Received: "
                f"{self.minimum} and {self.maximum}"
            )

    def _sizes(self):
        return [(0,), (1,), self.shape[-1:]]


@dataclasses.dataclass(frozen=True)
class SubgraphInfo:
    """The description of a subgraph.

    Args:
        name: Of its signature, or of the subgraph if it has none.
        description: A sentence.
        inputs: {name: `TensorInfo`}, in the order of the subgraph's inputs. Empty: not given.
        outputs: Likewise of its outputs.
    """

    name: str
    description: str = ""
    inputs: dict[str, TensorInfo] = dataclasses.field(default_factory=dict)
    outputs: dict[str, TensorInfo] = dataclasses.field(default_factory=dict)


def pack(name: str, description: str, version: str, subgraphs: list[SubgraphInfo]) -> bytes:
    """Returns the bytes of the metadata entry `TFLITE_METADATA`, to be put into the flatbuffer.

    Args:
        name: Of the model.
        description: A sentence.
        version: Of the model.
        subgraphs: Those of the file, in their order.

    Raises:
        ValueError: If the first one, which Android reads, has no inputs or no outputs.
    """
    if not subgraphs or not subgraphs[0].inputs or not subgraphs[0].outputs:
        raise ValueError(
            "The first of `subgraphs` must have inputs and outputs, all that it has in the file: "
            f"Android's reader of metadata refuses other files. Received: {subgraphs[:1]}"
        )
    model = _table(
        "ModelMetadata",
        name=name,
        description=description,
        version=version,
        subgraph_metadata=tuple(_subgraph(s) for s in subgraphs),
        min_parser_version=_PARSER,
    )
    builder = flatbuffers.Builder()
    builder.Finish(_write(builder, model, {}), _IDENTIFIER)
    return bytes(builder.Output())


# A flatbuffer as plain values: a string; NumPy scalars; tuples of tables or of floats; and tables.
_Table = tuple[str, tuple]  # its name in the schema, and (slot, value) of the fields that are set


def _table(kind, **fields) -> _Table:
    """A table; empty fields are left out, as readers expect."""
    slots = _SLOTS[kind]
    filled = {n: v for n, v in fields.items() if isinstance(v, np.generic) or v}
    return kind, tuple((slots.index(name), value) for name, value in filled.items())


_LABELS = _table("AssociatedFile", name=archive.LABELS, type=_TENSOR_AXIS_LABELS)


def _subgraph(subgraph):
    return _table(
        "SubGraphMetadata",
        name=subgraph.name,
        description=subgraph.description,
        input_tensor_metadata=tuple(
            _tensor(n, t, _input_content(t)) for n, t in subgraph.inputs.items()
        ),
        output_tensor_metadata=tuple(
            _tensor(n, t, _feature()) for n, t in subgraph.outputs.items()
        ),
    )


def _tensor(name, tensor, content):
    normalization = _table("NormalizationOptions", mean=tensor.mean, std=tensor.std)
    unit = _table("ProcessUnit", options_type=_NORMALIZATION_OPTIONS, options=normalization)
    stats = _table("Stats", max=tensor.maximum, min=tensor.minimum)
    return _table(
        "TensorMetadata",
        name=name,
        description=tensor.description,
        content=content,
        process_units=(unit,) if tensor.mean else (),
        stats=stats if tensor.minimum else None,
        associated_files=(_LABELS,) if tensor.labels else (),
    )


def _input_content(tensor):
    if len(tensor.shape) != 4 or tensor.shape[-1] not in _COLOR_SPACES:
        return _feature()
    height, width, channels = tensor.shape[1:]
    size = _table("ImageSize", width=np.uint32(width), height=np.uint32(height))
    properties = _table("ImageProperties", color_space=_COLOR_SPACES[channels], default_size=size)
    return _content(_IMAGE_PROPERTIES, properties)


def _feature():
    return _content(_FEATURE_PROPERTIES, _table("FeatureProperties"))


def _content(kind, properties):
    return _table("Content", content_properties_type=kind, content_properties=properties)


def _write(builder, value, written) -> int:
    """Writes a value and returns its offset. Equal ones are written once."""
    if value not in written:
        written[value] = _write_new(builder, value, written)
    return written[value]


def _write_new(builder, value, written):
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value[0], str):
        return _write_table(builder, value, written)
    if not isinstance(value[0], tuple):
        return builder.CreateNumpyVector(np.asarray(value, "float32"))
    offsets = [_write(builder, table, written) for table in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()


def _write_table(builder, table, written):
    kind, fields = table
    # A flatbuffer is written from the inside out: no table begins before another has ended.
    ready = [
        (s, v if isinstance(v, np.generic) else _write(builder, v, written)) for s, v in fields
    ]
    builder.StartObject(len(_SLOTS[kind]))
    prepend = {
        np.int8: builder.PrependInt8Slot,
        np.uint8: builder.PrependUint8Slot,
        np.uint32: builder.PrependUint32Slot,
        int: builder.PrependUOffsetTRelativeSlot,
    }
    for slot, value in ready:
        prepend[type(value)](slot, value, 0)
    return builder.EndObject()
