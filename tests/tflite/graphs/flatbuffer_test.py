"""Writing into a packed model: the bytes are those it would have been packed with."""

import mmap

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import keras_tesla as kt
from keras_tesla.tflite.graphs import flatbuffer
from keras_tesla.tflite.graphs.flatbuffer import Type


def model(offsets=(1, 1)):
    """A tensor inside the flatbuffer, and two whose bytes come after it."""
    made = flatbuffer.new_model("test")
    subgraph = flatbuffer.add_subgraph(made, "main")
    inside = subgraph.add_tensor("inside", (3,), Type.UINT8, np.array([7, 8, 9], np.uint8))
    for offset in offsets:
        buffer = schema.BufferT()
        buffer.offset, buffer.size = offset, 64
        made.buffers.append(buffer)
        tensor = subgraph.add_tensor("outside", (16,), Type.FLOAT32)
        subgraph.tensors[tensor].buffer = len(made.buffers) - 1
    subgraph.table.inputs = subgraph.table.outputs = [inside]
    return made


def test_offsets_are_written_as_if_the_model_was_packed_with_them():
    packed = bytearray(flatbuffer.pack(model()))
    flatbuffer.set_offsets(packed, {2: 4096, 3: 1 << 40})
    assert packed == flatbuffer.pack(model(offsets=(4096, 1 << 40)))


def test_the_bytes_of_a_buffer_are_found_in_place():
    packed = flatbuffer.pack(model())
    assert packed[flatbuffer.place_of(packed, 1)] == bytes([7, 8, 9])


@pytest.mark.tensorflow
def test_details_keep_nothing_of_the_file_in_memory(tmp_path):
    """Views of its bytes would: then a mapped file could not be closed."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), kt.layers.IDPDense(2)])
    bundle = kt.tflite.export(kt.TESLA(model, [100]), tmp_path / "out")
    with open(bundle.path(100), "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        inputs, _ = flatbuffer.details(content)
        content.close()
    assert [detail["shape"] for detail in inputs.values()] == [[1, 4]]
