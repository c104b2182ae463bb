"""Exporting a TESLA model to .tflite files."""

import hashlib
import importlib.metadata

import keras
import numpy as np

from keras_tesla import extraction
from keras_tesla.analysis.cost import multiply_adds
from keras_tesla.narrowing.plan import narrow
from keras_tesla.scope import percentage_scope
from keras_tesla.tflite import arguments, convert, runtime, verify
from keras_tesla.tflite.arguments import Arguments
from keras_tesla.tflite.bundle import Bundle, from_manifest
from keras_tesla.tflite.files import alone, folder, reading, writing
from keras_tesla.tflite.files import metadata as standard
from keras_tesla.tflite.files.constants import Constants
from keras_tesla.tflite.graphs import align, flatbuffer, integers, merge, share, structure
from keras_tesla.tflite.graphs.leaf import Leaf
from keras_tesla.training.tesla import TESLA
from keras_tesla.version import __version__

_FILE = "model.tflite"  # of the modes with one file


def export(
    tesla: TESLA,
    directory,
    mode: str = "per_percentage",
    percentages=None,
    batch_size: int = 1,
    inputs=None,
    overwrite: bool = False,
    *,
    storage: str = "shared",
    quantization: str | None = None,
    representative_data=None,
    int8_io: bool = False,
    validation_data=None,
    labels: list[str] | None = None,
    normalization: dict | None = None,
) -> Bundle:
    """Writes a trained model as .tflite files whose cost is chosen by a percentage.

    Every percentage of every file is run in LiteRT, by the Interpreter with and without XNNPACK and
    by CompiledModel, and compared with Keras before the file gets its name: float32 outputs must
    agree within 1e-5 of the largest.

    Args:
        tesla: The trained model, on the TensorFlow backend.
        directory: The folder to be written. It appears whole or not at all.
        mode: `"per_percentage"`: one file, `p30.tflite`, for each percentage. `"signatures"`: one
            file, `model.tflite`, with a signature `p30` for each percentage. `"percentage_input"`:
            the same with a signature `serving_default` that takes `percentage` (int32, shape
            `(1,)`) beside the inputs; a value between two percentages is served by the next higher
            one, a value beyond them by the nearest.
        percentages: Iterable of ints among those of `tesla`. Default: all of them.
        batch_size: Int, the fixed batch size of the files.
        inputs: {input name: array `(examples, ...)`}, or one array for a model with one input, on
            which files and Keras are compared. Default: the first of `representative_data`, else 16
            random examples.
        overwrite: Bool, whether an export in the folder may be replaced.
        storage: Of the modes with one file. `"shared"`: each weight once for all percentages.
            `"plain"`: each percentage's own, without operators that some delegates do not take.
        quantization: None: float32. `"int8"`: int8 weights and activations. `"dynamic_range"`: int8
            weights, computed with as LiteRT's dynamic range kernels do; in shared storage they
            become float32 when the file is opened.
        representative_data: For `"int8"`: typical inputs, in the form of `inputs`; a few hundred.
            None for a model made by `keras_tesla.quantization_aware`.
        int8_io: Bool, whether the inputs and outputs of an `"int8"` file are int8 too.
        validation_data: Tuple (inputs, labels): adds each percentage's accuracy to the manifest.
        labels: List of strings, the names of the classes, for the file's metadata.
        normalization: {input name: (mean, std)}, for the file's metadata: the network takes
            `(x - mean) / std`.

    Returns:
        A `Bundle`; the same is written as `manifest.json`.

    Raises:
        ValueError: An argument that does not fit, a percentage that was not trained.
        RuntimeError: Another backend than TensorFlow.
        VerificationError: A file computed something else than Keras.
        OSError: The folder is a file, holds an export already, or cannot be written.
    """
    checked = arguments.check(
        tesla,
        mode,
        storage,
        quantization,
        int8_io,
        percentages,
        batch_size,
        inputs,
        representative_data,
        validation_data,
    )
    one_file = mode != "per_percentage"
    header = {
        "format": reading.FORMAT,
        "mode": mode,
        "storage": storage if one_file else None,
        "quantization": quantization,
        "name": tesla.network.name,
        "versions": _versions(),
    }
    said = {
        "name": tesla.network.name,
        "version": __version__,
        "inputs": checked.inputs,
        "normalization": normalization,
        "labels": labels,
    }
    with folder.whole(directory, overwrite) as temporary:
        sources = [
            _Source(
                tesla, p, batch_size, quantization, int8_io, checked, header["storage"] == "shared"
            )
            for p in checked.percentages
        ]
        header.update(sources[0].interface())
        if one_file:
            content = _together(sources, header, said)
            files = {_FILE: _complete(content, sources, checked)}
        else:
            files = {
                f"p{source.percentage}.tflite": _complete(
                    _separate(source, header, said), [source], checked
                )
                for source in sources
            }
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        bundle = from_manifest(directory, _manifest(files))
        (temporary / folder.MANIFEST).write_text(bundle.manifest())
    return bundle


class _Source:
    """One percentage, converted by itself, and what Keras computes at it."""

    def __init__(
        self, tesla, percentage, batch_size, quantization, int8_io, checked: Arguments, shared
    ):
        self.percentage, self.quantization = percentage, quantization
        plan = narrow(tesla.graph, percentage)
        model = extraction.extract(
            plan, f"p{percentage}", batch_size, dtype="float32", private_apart=shared
        )
        self.multiply_adds = multiply_adds(model)
        aware = quantization == "int8" and checked.representative is None
        floats = model
        if aware:
            floats = extraction.extract(plan, model.name, batch_size, "float32", ranges=False)
        self.floats = self.content = convert.convert(floats)
        if quantization is not None:
            self.content = convert.convert(model, quantization, checked.representative, int8_io)
        if aware:
            self._check_integers()
        self.inputs = checked.inputs
        self.expected = _expected(tesla, percentage, checked.inputs, model)
        self.allowed = verify.tolerance(tesla.network)
        self.spread = None
        if quantization is not None:
            self.spread = verify.spread_allowed(
                self.content, self.inputs, self.expected, f"{percentage} %"
            )

    def _check_integers(self):
        floats = integers.float_tensors(Leaf(self.percentage, self.content))
        if floats:
            raise ValueError(
                f"{self.percentage} %: the converter left float32 numbers in the int8 network: "
                f"{floats}. Some layers have no int8 form with a single channel, such as Conv1D: "
                "make them wider, or leave this percentage out. Nothing was written."
            )

    def interface(self) -> dict:
        """The names, shapes and types of inputs and outputs."""
        leaf = Leaf(self.percentage, self.content)
        return {
            side: {
                name: {"shape": [int(n) for n in tensor.shape], "dtype": flatbuffer.dtype(tensor)}
                for name, tensor in ((n, leaf.graph.tensors[i]) for n, i in indices.items())
            }
            for side, indices in (("inputs", leaf.inputs), ("outputs", leaf.outputs))
        }

    def entry(self, signature) -> dict:
        """What the header says of the percentage; what is measured later takes no more bytes."""
        return {
            "percentage": self.percentage,
            "signature": signature,
            "multiply_adds": self.multiply_adds,
            "bytes": writing.UNKNOWN,
            "accuracy": writing.UNKNOWN,
            "latency": writing.UNKNOWN,
            "max_abs_difference": writing.UNKNOWN,
        }

    def case(self, signature, percentage=None) -> verify.Case:
        inputs, what = self.inputs, f"{self.percentage} %"
        if percentage is not None:
            inputs = {**inputs, merge.PERCENTAGE: np.array([percentage], np.int32)}
            what = f"{percentage} %, asked for as an input"
        return verify.Case(what, signature, inputs, self.expected, self.allowed, self.spread)


def _separate(source: _Source, header, said) -> bytes:
    """The file of one percentage."""
    header = {**header, "percentages": [source.entry(merge.DEFAULT)], "not_shared": []}
    model = flatbuffer.unpack(source.content)
    entries = {standard.ENTRY: standard.pack(model, **said)}
    return writing.write_one(source.content, header, entries, said["labels"])


def _together(sources: list[_Source], header, said) -> bytes:
    """The file of all percentages."""
    ascending = sources[::-1]
    shared = header["storage"] == "shared"
    weights_only = shared and header["quantization"] == "dynamic_range"
    leaves = [Leaf(s.percentage, s.floats if weights_only else s.content) for s in ascending]
    own = []
    if shared:
        quantized = header["quantization"] == "int8"
        floats = [Leaf(s.percentage, s.floats) for s in ascending] if quantized else leaves
        codes = Leaf(ascending[-1].percentage, ascending[-1].content) if weights_only else None
        own = share.share(leaves, floats, codes)
    with_input = header["mode"] == "percentage_input"
    if with_input:
        align.align(leaves)
    pool = Constants()
    merged = merge.merge(leaves, with_input, pool)
    entries = [source.entry(merge.key(source.percentage)) for source in sources]
    header = {**header, "percentages": entries, "not_shared": own}
    metadata = {standard.ENTRY: standard.pack(merged.model, **said)}
    return writing.write_many(merged, leaves, pool, header, metadata, said["labels"])


def _complete(content: bytes, sources: list[_Source], checked: Arguments) -> bytes:
    """Verifies a file and returns it with what was measured on it."""
    structure.check(content)
    header = reading.read_header(content)
    signatures = {e["percentage"]: e["signature"] for e in header["percentages"]}
    cases = [source.case(signatures[source.percentage]) for source in sources]
    if header["mode"] == "percentage_input":
        cases += _choices(sources)
    differences = verify.compare(content, cases)
    for source, entry, difference in zip(sources, header["percentages"], differences, strict=False):
        alone_content = content
        if "alone" in entry:
            alone_content = alone.extract(content, header, source.percentage)
            verify.compare(alone_content, [source.case(None)])
        entry["bytes"] = len(alone_content)
        entry["max_abs_difference"] = float(f"{difference:.3g}")
        entry["latency"] = float(f"{runtime.latency(alone_content, source.inputs):.4g}")
        entry["accuracy"] = None
        if checked.validation is not None:
            entry["accuracy"] = round(_accuracy(alone_content, *checked.validation), 6)
    return writing.with_header(content, header)


def _choices(sources):
    """Each percentage asked for as an input, and what lies between, above and below them."""
    above = sources[0]
    yield above.case(merge.DEFAULT, 2**31 - 1)
    for source in sources:
        yield source.case(merge.DEFAULT, source.percentage)
        if source is not above and above.percentage > source.percentage + 1:
            yield above.case(merge.DEFAULT, source.percentage + 1)
        above = source
    yield above.case(merge.DEFAULT, -(2**31))


def _accuracy(content, inputs, labels) -> float:
    outputs = runtime.run(runtime.interpreter(content), inputs)
    (scores,) = outputs.values()
    return float(np.mean(scores.argmax(-1) == labels))


def _expected(tesla, percentage, inputs, model):
    """What Keras computes: on the live weights and not narrowed, unlike what was converted."""
    names = [t.name for t in tesla.network.inputs]
    x = keras.tree.pack_sequence_as(tesla.graph.inputs, [inputs[name] for name in names])
    with percentage_scope(percentage):
        outputs = tesla.network(x, training=False)
    flat = [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(outputs)]
    return dict(zip(convert.output_names(model), flat, strict=True))


def _manifest(files) -> dict:
    """What the manifest says: the headers of all files in one."""
    entries = []
    for name, content in files.items():
        written = reading.read_header(content)
        entries += [{**entry, "file": name} for entry in written["percentages"]]
    last = {k: v for k, v in written.items() if k not in ("format", "percentages")}
    described = [
        {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in files.items()
    ]
    return {**last, "files": described, "percentages": entries}


def _versions():
    packages = ("tensorflow", "keras", "ai-edge-litert")
    return {"keras-tesla": __version__, **{p: importlib.metadata.version(p) for p in packages}}
