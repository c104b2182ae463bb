"""LiteRT's flatbuffer as Python objects, and what reading and rewriting a graph needs."""

import struct

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

Op = schema.BuiltinOperator
Type = schema.TensorType

_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16  # bytes, of the constants inside a flatbuffer, says the schema
_DATA, _OFFSET = 4, 6  # places of a `Buffer`'s fields in its table
_DTYPES = {
    Type.FLOAT32: "float32",
    Type.FLOAT16: "float16",
    Type.INT8: "int8",
    Type.UINT8: "uint8",
    Type.INT16: "int16",
    Type.INT32: "int32",
    Type.INT64: "int64",
    Type.BOOL: "bool",
}


def unpack(content: bytes) -> schema.ModelT:
    """Returns the objects of a .tflite file; the arrays in them are views of `content`."""
    return schema.ModelT.InitFromPackedBuf(content, 0)


def pack(model: schema.ModelT) -> bytes:
    """Returns the bytes of a .tflite file."""
    builder = _Builder(1 << 16)
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def place_of(packed, buffer: int) -> slice:
    """Returns where the bytes of a buffer lie in a packed model."""
    table = schema.Model.GetRootAs(packed, 0).Buffers(buffer)._tab
    start = table.Vector(table.Offset(_DATA))
    return slice(start, start + table.VectorLen(table.Offset(_DATA)))


def set_offsets(packed: bytearray, offsets: dict[int, int]):
    """Writes where constants lie into a packed model, in place of the offsets it was packed with.

    The size of a model, and so the offsets of what follows it, is known only once it is packed.

    Args:
        packed: The bytes of a model in which each of these buffers has some offset.
        offsets: {index of a buffer: offset of its bytes in the file}.
    """
    model = schema.Model.GetRootAs(packed, 0)
    for index, offset in offsets.items():
        table = model.Buffers(index)._tab
        struct.pack_into("<Q", packed, table.Pos + table.Offset(_OFFSET), offset)


class _Builder(flatbuffers.Builder):
    """Writes equal strings and equal vectors once.

    The percentages have equal names, shapes and zero points; a flatbuffer may point to one of them
    from many places.
    """

    def __init__(self, size):
        super().__init__(size)
        self._written = {}

    def CreateString(self, s, *args):
        return self._once(s, lambda: super(_Builder, self).CreateString(s, *args))

    def CreateNumpyVector(self, x):
        def write():
            if x.dtype == np.uint8:
                self.Prep(_ALIGNMENT, x.nbytes)  # the generated code knows no `force_align`
            return super(_Builder, self).CreateNumpyVector(x)

        return self._once((x.dtype.str, x.tobytes()), write)

    def _once(self, key, write):
        if key not in self._written:
            self._written[key] = write()
        return self._written[key]


def new_model(description: str) -> schema.ModelT:
    """Returns a model without subgraphs; its buffer 0 is the empty one, as the schema wants."""
    model = schema.ModelT()
    model.version = 3
    model.description = description
    model.operatorCodes, model.subgraphs, model.signatureDefs = [], [], []
    model.buffers, model.metadata = [schema.BufferT()], []
    return model


def dtype(tensor: schema.TensorT) -> str:
    """Returns the NumPy name of a tensor's type.

    Raises:
        ValueError: If it is one that is not handled here, such as a string.
    """
    if tensor.type not in _DTYPES:
        raise ValueError(f"Tensor {text(tensor.name)!r} has a type that is not supported here.")
    return _DTYPES[tensor.type]


def details(content: bytes) -> tuple[dict, dict]:
    """Returns the details of inputs and outputs of a file's only signature, as LiteRT names them.

    Returns:
        {input name: {"shape", "dtype", "quantization": (scale, zero point)}}, that of the outputs.
    """
    model = unpack(content)
    (signature,) = model.signatureDefs
    tensors = model.subgraphs[signature.subgraphIndex].tensors
    return (
        {text(x.name): _detail(tensors[x.tensorIndex]) for x in signature.inputs},
        {text(x.name): _detail(tensors[x.tensorIndex]) for x in signature.outputs},
    )


def _detail(tensor):
    quantization = tensor.quantization
    scaled = quantization is not None and quantization.scale is not None
    pair = (float(quantization.scale[0]), int(quantization.zeroPoint[0])) if scaled else (0.0, 0)
    # Not the array itself: it is a view, which would keep the whole file in memory.
    shape = [int(size) for size in tensor.shape]
    return {"shape": shape, "dtype": np.dtype(dtype(tensor)).type, "quantization": pair}


def text(name) -> str:
    """Returns a name of the flatbuffer, which may be bytes or nothing, as a string."""
    return name.decode() if isinstance(name, bytes) else name or ""


def data_of(buffer: schema.BufferT) -> bytes:
    """Returns the bytes that a buffer holds inside the flatbuffer."""
    return b"" if buffer.data is None else np.asarray(buffer.data, np.uint8).tobytes()


def called(operator: schema.OperatorT) -> dict[tuple[str, str], int]:
    """Returns {(attribute of the operator, field of these options): index of a subgraph it runs}.

    Those of WHILE, IF, CALL_ONCE and their like.
    """
    return {
        (name, field): int(value)
        for name in ("builtinOptions", "builtinOptions2")
        if (options := getattr(operator, name)) is not None
        for field, value in vars(options).items()
        if field == "subgraph" or field.endswith("SubgraphIndex")
    }


def signature(key: str, subgraph: int, inputs: dict, outputs: dict) -> schema.SignatureDefT:
    """Returns a signature.

    Args:
        key: Its name.
        subgraph: Int, index of its subgraph.
        inputs: {name: index of a tensor}.
        outputs: Likewise.
    """
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = key, subgraph
    made.inputs, made.outputs = _tensor_map(inputs), _tensor_map(outputs)
    return made


def _tensor_map(indices):
    entries = []
    for name, index in indices.items():
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name, int(index)
        entries.append(entry)
    return entries


class Subgraph:
    """One subgraph of a model, to be read and rewritten in place.

    Args:
        model: The model it belongs to, with its operator types and buffers.
        table: The schema's object.
    """

    def __init__(self, model: schema.ModelT, table: schema.SubGraphT):
        self.model, self.table = model, table
        # Lists, not NumPy arrays: they grow.
        for operator in self.operators:
            operator.inputs, operator.outputs = list(operator.inputs), list(operator.outputs)
        table.inputs, table.outputs = list(table.inputs), list(table.outputs)

    @property
    def tensors(self) -> list:
        return self.table.tensors

    @property
    def operators(self) -> list:
        return self.table.operators

    def op(self, operator) -> int:
        """Returns the `Op` of an operator."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        # Files for old runtimes have values below 127 in the older field only.
        return max(code.builtinCode, code.deprecatedBuiltinCode)

    def array(self, tensor: int) -> np.ndarray | None:
        """Returns the value of a constant tensor, None for one that is computed."""
        found = self.tensors[tensor]
        data = data_of(self.model.buffers[found.buffer])
        if not data:
            return None
        return np.frombuffer(data, dtype(found)).reshape([int(n) for n in found.shape])

    def add_tensor(self, name, shape, type_, value=None, quantization=None) -> int:
        """Adds a tensor and returns its index.

        Args:
            name: String.
            shape: Sequence of ints.
            type_: Its `Type`.
            value: Array for a constant, else None.
            quantization: The schema's object or None.
        """
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.quantization = name, type_, quantization
        tensor.shape, tensor.hasRank = np.array(shape, np.int32), True
        if value is not None:
            tensor.buffer = self._add_buffer(value)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def add_like(self, name: str, tensor: schema.TensorT, value=None) -> int:
        """Adds a tensor with the shape, type and quantization of another one."""
        return self.add_tensor(name, tensor.shape, tensor.type, value, tensor.quantization)

    def set_value(self, tensor: int, value: np.ndarray):
        """Makes a tensor the constant `value`; other tensors keep the buffer it had."""
        self.tensors[tensor].shape = np.array(value.shape, np.int32)
        self.tensors[tensor].buffer = self._add_buffer(value)

    def _add_buffer(self, value):
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def add_operator(self, op, inputs, outputs, options=None, at=None, version=1):
        """Adds an operator.

        Args:
            op: Its `Op`.
            inputs: Indices of tensors.
            outputs: Indices of tensors.
            options: The schema's object of its options, or None.
            at: Int, its place in execution order; None: last.
            version: Int, of the operator.
        """
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(op, version)
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options is not None:
            operator.builtinOptions = options
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        self.operators.insert(len(self.operators) if at is None else at, operator)

    def raise_version(self, operator, least: int):
        """Makes the version of an operator at least `least`, for an input that it lacked."""
        code = self.model.operatorCodes[operator.opcodeIndex]
        operator.opcodeIndex = self._code(self.op(operator), max(code.version, least))

    def add_reshape(self, x: int, y: int, at: int):
        """Adds a RESHAPE of a tensor to the shape of another one."""
        shape = np.array(self.tensors[y].shape, np.int32)
        options = schema.ReshapeOptionsT()
        options.newShape = [int(n) for n in shape]
        wanted = self.add_tensor("shape", shape.shape, Type.INT32, shape)
        self.add_operator(Op.RESHAPE, [x, wanted], [y], options, at)

    def _code(self, op, version):
        code = schema.OperatorCodeT()
        code.builtinCode, code.version = op, version
        code.deprecatedBuiltinCode = min(op, 127)
        return add_code(self.model, code)


def add_subgraph(model: schema.ModelT, name: str) -> Subgraph:
    """Adds an empty subgraph to a model."""
    subgraph = schema.SubGraphT()
    subgraph.name = name
    subgraph.tensors, subgraph.operators = [], []
    subgraph.inputs, subgraph.outputs = [], []
    model.subgraphs.append(subgraph)
    return Subgraph(model, subgraph)


def add_code(model: schema.ModelT, code: schema.OperatorCodeT) -> int:
    """Returns the index of an operator code in a model, adding it if missing."""
    for index, known in enumerate(model.operatorCodes):
        if vars(known) == vars(code):
            return index
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1
