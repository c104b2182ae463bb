"""The header of a file: what it says, and that what is filled in later finds room."""

import dataclasses
import json

import pytest

from keras_tesla.tflite.files.header import Header, Measures, PercentageHeader, Recipe
from keras_tesla.tflite.files.writing import Draft

RECIPE = Recipe(
    offset=0,
    compressed_bytes=9,
    bytes=70,
    sha256="0" * 64,
    copies=[[0, 0, 8]],
    nested_weights=[[8, 0, 0, 1]],
)
LAYOUTS = [{"rows": [1, 2], "columns": [2, 4], "inner": 1, "item_bytes": 4}]


def header(standalone=RECIPE, measures=None, layouts=LAYOUTS):
    return Header(
        mode="signatures",
        storage="shared",
        quantization=None,
        name="net",
        versions={"keras": "3.15"},
        inputs={"x": {"shape": [1, 4], "dtype": "float32"}},
        outputs={"y": {"shape": [1, 2], "dtype": "float32"}},
        percentages=(
            PercentageHeader(50, "p50", 8, measures=measures or Measures(), standalone=standalone),
        ),
        unshared_weights=[],
        nested_layouts=layouts,
    )


def test_the_text_is_the_json_of_format_1():
    """Key by key: Python, Kotlin and JavaScript read it."""
    measured = Measures(bytes=70, accuracy=0.5, latency=1e-05, max_abs_difference=0.0)
    assert json.loads(header(measures=measured).text()) == {
        "format": 1,
        "mode": "signatures",
        "storage": "shared",
        "quantization": None,
        "name": "net",
        "versions": {"keras": "3.15"},
        "inputs": {"x": {"shape": [1, 4], "dtype": "float32"}},
        "outputs": {"y": {"shape": [1, 2], "dtype": "float32"}},
        "percentages": [
            {
                "percentage": 50,
                "signature": "p50",
                "multiply_adds": 8,
                "bytes": 70,
                "accuracy": 0.5,
                "latency": 1e-05,
                "max_abs_difference": 0.0,
                "standalone": {
                    "offset": 0,
                    "compressed_bytes": 9,
                    "bytes": 70,
                    "sha256": "0" * 64,
                    "copies": [[0, 0, 8]],
                    "nested_weights": [[8, 0, 0, 1]],
                },
            }
        ],
        "unshared_weights": [],
        "nested_layouts": LAYOUTS,
    }


def test_layers_that_are_not_counted_are_named():
    entry = dataclasses.replace(header().percentages[0], not_counted=["own"])
    assert entry.values()["not_counted"] == ["own"]


def test_a_file_of_one_percentage_has_no_recipe():
    values = header(standalone=None, layouts=None).values()
    assert "nested_layouts" not in values
    assert "standalone" not in values["percentages"][0]


def test_scales_of_int8_inputs_and_outputs_are_there_if_there_are_any():
    scales = {"x": {"scale": 0.5, "zero_point": -3}}
    entry = PercentageHeader(50, "p50", 8, quantized_inputs=scales)
    assert entry.values()["quantized_inputs"] == scales
    assert "quantized_outputs" not in entry.values()


def test_values_read_from_json_are_equal():
    values = header().values()
    assert json.loads(json.dumps(values)) == values


def test_there_is_room_for_every_number_that_is_filled_in_later():
    room = header().room()
    large = 10**13 - 1  # an offset in a file of ten terabytes
    recipe = dataclasses.replace(
        RECIPE, offset=large, copies=[[0, large, 8]], nested_weights=[[8, large, 0, 1]]
    )
    # The longest that `round(x, 6)` and four digits can be.
    measured = Measures(large, accuracy=0.123457, latency=1.234e-05, max_abs_difference=1.23e-12)
    filled = header(recipe, measured)
    assert len(header().text()) < len(filled.text()) <= room
    assert filled.room() == room


def test_a_draft_is_finished_with_its_header_in_place_and_no_other():
    first = header()
    content = bytes(16) + first.text().ljust(first.room()) + bytes(200)
    draft = Draft(content, first, slice(16, 16 + first.room()))
    measured = header(measures=Measures(bytes=70))
    finished = draft.finish(measured)
    assert len(finished) == len(content)
    assert json.loads(finished[16 : 16 + first.room()]) == measured.values()
    assert finished[:16] == bytes(16)
    with pytest.raises(ValueError, match="the file has room for"):
        draft.finish(dataclasses.replace(first, name="n" * 400))
