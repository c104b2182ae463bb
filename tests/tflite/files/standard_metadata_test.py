"""Standard metadata, read by the library that Android's readers were generated beside."""

import json
import pathlib
import subprocess
import textwrap

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_tesla.tflite.files.metadata import ENTRY
from keras_tesla.tflite.files.standard_metadata import SubgraphInfo, TensorInfo, pack
from keras_tesla.tflite.graphs import flatbuffer
from keras_tesla.tflite.graphs.flatbuffer import Op, Type
from tests.tflite import forging

READER = pathlib.Path(__file__).parents[3] / ".tools/runtimes/tflite-support-0.4.4/bin/python"

IMAGE = TensorInfo(
    (1, 4, 6, 3),
    description="An image.",
    mean=(120.0, 110.0, 100.0),
    std=(50.0, 60.0, 70.0),
    minimum=(-2.5,),
    maximum=(2.5,),
)
SCORES = TensorInfo((1, 3), description="One for each animal.", labels=True)
PERCENTAGE = TensorInfo((1,), minimum=(10.0,), maximum=(100.0,))
CHOOSE = SubgraphInfo(
    "serving_default",
    description="Runs at `percentage`.",
    inputs={"image": IMAGE, "percentage": PERCENTAGE},
    outputs={"scores": SCORES},
)
P50 = SubgraphInfo(
    "p50", inputs={"image": IMAGE}, outputs={"scores": SCORES, "extra": TensorInfo((1, 2))}
)


def model(metadata: bytes, labels, inputs=1) -> bytes:
    """A .tflite file: the channel means of an image. Further inputs are not read."""
    made = flatbuffer.new_model("test")
    subgraph = flatbuffer.add_subgraph(made, "main")
    image = subgraph.add_tensor("image", (1, 4, 6, 3), Type.FLOAT32)
    others = [subgraph.add_tensor("n", (1,), Type.INT32) for _ in range(inputs - 1)]
    axes = subgraph.add_tensor("axes", (2,), Type.INT32, np.array([1, 2], "int32"))
    scores = subgraph.add_tensor("scores", (1, 3), Type.FLOAT32)
    subgraph.add_operator(Op.MEAN, [image, axes], [scores], schema.ReducerOptionsT())
    subgraph.table.inputs, subgraph.table.outputs = [image, *others], [scores]
    return forging.file(made, {}, {ENTRY: metadata}, labels)


def ask(code: str, *arguments):
    """Runs code in the environment of tflite-support and returns what it printed as JSON."""
    if not READER.exists():
        pytest.skip(f"{READER} is missing; tools/setup_old_runtimes.sh installs it")
    done = subprocess.run(
        [READER, "-c", textwrap.dedent(code), *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def read(metadata: bytes, tmp_path) -> dict:
    """What the classes generated from the schema find: objects as dicts, without empty fields."""
    (tmp_path / "metadata").write_bytes(metadata)
    return ask(
        """
        import json, pathlib, sys
        from tensorflow_lite_support.metadata import metadata_schema_py_generated as schema

        def plain(value):
            if isinstance(value, bytes):
                return value.decode()
            if hasattr(value, "tolist"):
                return value.tolist()
            if isinstance(value, list):
                return [plain(v) for v in value]
            if hasattr(value, "__dict__"):
                fields = {k: plain(v) for k, v in vars(value).items()}
                return {k: v for k, v in fields.items() if v not in (None, 0)}
            return value

        data = pathlib.Path(sys.argv[1]).read_bytes()
        assert schema.ModelMetadata.ModelMetadataBufferHasIdentifier(data, 0)
        print(json.dumps(plain(schema.ModelMetadataT.InitFromObj(
            schema.ModelMetadata.GetRootAsModelMetadata(data, 0)))))
        """,
        tmp_path / "metadata",
    )


def test_another_reader_finds_every_subgraph_with_its_tensors_in_order(tmp_path):
    metadata = pack("animals", "Tells animals apart.", "7", [CHOOSE, SubgraphInfo("pass"), P50])
    found = read(metadata, tmp_path)
    subgraphs = found.pop("subgraphMetadata")
    assert found == {
        "name": "animals",
        "description": "Tells animals apart.",
        "version": "7",
        "minParserVersion": "1.0.0",
    }
    assert [s["name"] for s in subgraphs] == ["serving_default", "pass", "p50"]
    assert subgraphs[0]["description"] == "Runs at `percentage`."
    assert subgraphs[1] == {"name": "pass"}
    names = [
        [t["name"] for t in s[key]]
        for s in (subgraphs[0], subgraphs[2])
        for key in ("inputTensorMetadata", "outputTensorMetadata")
    ]
    assert names == [["image", "percentage"], ["scores"], ["image"], ["scores", "extra"]]


def test_another_reader_finds_what_is_said_of_an_image(tmp_path):
    found = read(pack("animals", "", "1", [CHOOSE]), tmp_path)
    image, percentage = found["subgraphMetadata"][0]["inputTensorMetadata"]
    assert image == {
        "name": "image",
        "description": "An image.",
        # 2: ImageProperties; 1: RGB. A width comes before a height.
        "content": {
            "contentPropertiesType": 2,
            "contentProperties": {"colorSpace": 1, "defaultSize": {"width": 6, "height": 4}},
        },
        # 1: NormalizationOptions
        "processUnits": [
            {
                "optionsType": 1,
                "options": {"mean": [120.0, 110.0, 100.0], "std": [50.0, 60.0, 70.0]},
            }
        ],
        "stats": {"max": [2.5], "min": [-2.5]},
    }
    assert percentage == {
        "name": "percentage",
        "content": {"contentPropertiesType": 1, "contentProperties": {}},  # 1: FeatureProperties
        "stats": {"max": [100.0], "min": [10.0]},
    }


def test_another_reader_finds_the_labels_of_an_output_and_of_no_other(tmp_path):
    found = read(pack("animals", "", "1", [P50]), tmp_path)
    scores, extra = found["subgraphMetadata"][0]["outputTensorMetadata"]
    assert scores["associatedFiles"] == [{"name": "labels.txt", "type": 2}]  # TENSOR_AXIS_LABELS
    assert "associatedFiles" not in extra


@pytest.mark.parametrize(
    ("shape", "kind", "color_space"),
    [
        ((1, 8, 8, 3), 2, 1),
        ((2, 8, 8, 1), 2, 2),
        ((1, 8, 8, 2), 1, None),
        ((1, 8, 3), 1, None),
        ((1, 64), 1, None),
    ],
)
def test_an_input_of_one_or_three_channels_is_an_image(shape, kind, color_space, tmp_path):
    subgraph = SubgraphInfo(
        "p50", inputs={"x": TensorInfo(shape)}, outputs={"y": TensorInfo(shape)}
    )
    found = read(pack("m", "", "1", [subgraph]), tmp_path)["subgraphMetadata"][0]
    content = found["inputTensorMetadata"][0]["content"]
    assert content["contentPropertiesType"] == kind
    assert content["contentProperties"].get("colorSpace") == color_space
    # What comes out is not a picture to be resized.
    assert found["outputTensorMetadata"][0]["content"]["contentPropertiesType"] == 1


def test_the_displayer_shows_the_metadata_and_the_labels_of_a_file(tmp_path):
    labels = ["Katze", "Hund", "Bär"]
    content = model(pack("animals", "", "1", [CHOOSE, P50]), labels, inputs=2)
    (tmp_path / "m.tflite").write_bytes(content)
    shown, files, text = ask(
        """
        import json, sys
        from tensorflow_lite_support.metadata.python.metadata import MetadataDisplayer

        shown = MetadataDisplayer.with_model_file(sys.argv[1])
        text = shown.get_associated_file_buffer("labels.txt").decode()
        print(json.dumps([json.loads(shown.get_metadata_json()),
                          shown.get_packed_associated_file_list(), text]))
        """,
        tmp_path / "m.tflite",
    )
    assert text.split() == labels
    assert "labels.txt" in files
    assert [s["name"] for s in shown["subgraph_metadata"]] == ["serving_default", "p50"]
    (scores,) = shown["subgraph_metadata"][0]["output_tensor_metadata"]
    assert scores["associated_files"] == [{"name": "labels.txt", "type": "TENSOR_AXIS_LABELS"}]


def test_the_task_library_classifies_an_image_with_nothing_but_the_file(tmp_path):
    subgraph = SubgraphInfo("p50", inputs={"image": IMAGE}, outputs={"scores": SCORES})
    content = model(pack("animals", "", "1", [subgraph]), ["cat", "dog", "bear"])
    (tmp_path / "m.tflite").write_bytes(content)
    found = ask(
        """
        import json, sys
        import numpy as np
        from tflite_support.task import vision

        classifier = vision.ImageClassifier.create_from_file(sys.argv[1])
        pixels = np.empty((4, 6, 3), np.uint8)
        pixels[:] = 145, 170, 107
        image = vision.TensorImage.create_from_array(pixels)
        categories = classifier.classify(image).classifications[0].categories
        print(json.dumps({c.category_name: c.score for c in categories}))
        """,
        tmp_path / "m.tflite",
    )
    # (145 - 120) / 50, (170 - 110) / 60, (107 - 100) / 70; float32 rounds them.
    assert found == pytest.approx({"cat": 0.5, "dog": 1.0, "bear": 0.1}, abs=1e-6)


def test_equal_tensors_are_written_once():
    def size(count):
        return len(pack("m", "", "1", [CHOOSE, *(SubgraphInfo(f"p{i}") for i in range(10, count))]))

    def described(count):
        more = [SubgraphInfo(f"p{i}", "", P50.inputs, P50.outputs) for i in range(10, count)]
        return len(pack("m", "", "1", [CHOOSE, *more]))

    # A name of two letters, its table and two vectors of references.
    assert described(30) - described(20) <= 10 * 64
    assert size(30) < described(30)


# What is refused.


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mean": (0.0, 1.0), "std": (1.0, 1.0)}, "one for each channel"),
        ({"mean": (0.0,), "std": ()}, "`mean` and `std` must both"),
        ({"mean": (float("nan"),), "std": (1.0,)}, "finite"),
        ({"mean": (0.0,), "std": (0.0,)}, "`std` must be above zero. Received: (0.0,)"),
        ({"minimum": (1.0,), "maximum": (0.0,)}, "`minimum` must not be above `maximum`"),
        ({"minimum": (1.0,)}, "`minimum` and `maximum` must both"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        TensorInfo((1, 4, 6, 3), **kwargs)


@pytest.mark.parametrize(
    "subgraphs", [[], [SubgraphInfo("pass"), P50], [SubgraphInfo("p", inputs={})]]
)
def test_a_first_subgraph_without_inputs_and_outputs_is_refused(subgraphs):
    with pytest.raises(ValueError, match="must have inputs and outputs"):
        pack("m", "", "1", subgraphs)
