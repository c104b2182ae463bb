"""Exporting a TESLA model to .tflite files."""

import dataclasses
import hashlib
import importlib.metadata
from collections.abc import Callable

from keras_tesla.tflite import checks, combined_file, reference
from keras_tesla.tflite import interface as interfaces
from keras_tesla.tflite.bundle import Bundle, from_manifest
from keras_tesla.tflite.converted import Converted, convert_percentage
from keras_tesla.tflite.examples import Examples
from keras_tesla.tflite.files import folder, writing
from keras_tesla.tflite.files import metadata as standard
from keras_tesla.tflite.files.header import Header, PercentageHeader
from keras_tesla.tflite.finish import DraftFile, VerifiedFile, verify_and_measure
from keras_tesla.tflite.graphs import align, flatbuffer, merge
from keras_tesla.tflite.graphs.percentage_graph import PercentageGraph
from keras_tesla.tflite.interface import Interface
from keras_tesla.tflite.settings import Settings
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
    tolerance: float | None = None,
    input_shapes: dict | None = None,
    progress: Callable[[str], None] = lambda line: None,
) -> Bundle:
    """Writes a trained model as .tflite files whose cost is chosen by a percentage.

    Every percentage of every file is run in LiteRT, by the Interpreter with and without XNNPACK and
    by CompiledModel, and compared with Keras before the file gets its name: float32 outputs must
    agree within `tolerance`.

    Args:
        tesla: The trained model, on the TensorFlow backend.
        directory: The folder to be written. It appears whole or not at all.
        mode: `"per_percentage"`: one file, `p30.tflite`, for each percentage. `"signatures"`: one
            file, `model.tflite`, with a signature `p30` for each percentage. `"percentage_input"`:
            the same with a signature `serving_default` that takes `percentage` (int32, shape
            `(1,)`) in addition to the inputs; a value between two percentages is served by the next
            higher one, a value outside their range by the nearest.
        percentages: Iterable of ints among those of `tesla`. Default: all of them.
        batch_size: Int, the fixed batch size of the files.
        inputs: {input name: array `(examples, ...)`}, or one array for a model with one input, on
            which files and Keras are compared. Default: the first of `representative_data`, else 16
            random examples: standard normal floats (from 0 to 1 where those give NaN) and integers
            0 and 1, or what a layer that reads an input says of it: see
            `keras_tesla.tflite.typical.guess`.
        overwrite: Bool, whether an export in the folder may be replaced.
        storage: For the modes with one file. `"shared"`: each weight once for all percentages.
            `"plain"`: the weights of each percentage, without operators that some delegates lack.
        quantization: None: float32. `"int8"`: int8 weights and activations. `"dynamic_range"`: int8
            weights, computed with as LiteRT's dynamic range kernels do; in shared storage they
            become float32 when the file is opened.
        representative_data: For `"int8"`: typical inputs, in the form of `inputs`; a few hundred.
            None for a model made by `keras_tesla.quantization_aware`.
        int8_io: Bool, whether the inputs and outputs of an `"int8"` file are int8 too.
        validation_data: Tuple (inputs, labels): adds each percentage's accuracy to the manifest.
        labels: List of strings, the names of the classes: one for each number along the last axis
            of the outputs, for the manifest and the file's metadata.
        normalization: {input name: (mean, std)}, for the file's metadata: the network takes
            `(x - mean) / std`.
        tolerance: Float, 0 < tolerance < 1: how far the outputs of a float32 file may be from those
            of Keras, relative to the largest output (at least 1). Default: 1e-5, more for a deep
            network or one of mixed precision. Give a larger one where rounding alone is more: where
            large numbers nearly cancel out, as in the squared distance of two embeddings.
        input_shapes: {input name: shape without the batch}, or the shape of the only input, for
            inputs with dimensions that are not known.
        progress: Function that takes a line on each percentage that is done.

    Returns:
        A `Bundle`; the same is written as `manifest.json`.

    Warns:
        UserWarning: A percentage that no step has trained, while others were trained; layers are
            cut off because LiteRT has no lookups and strings.

    Raises:
        ValueError: An invalid argument, or a percentage that `tesla` does not have; an input with a
            dimension that is not known; a layer that draws random numbers.
        RuntimeError: Another backend than TensorFlow.
        VerificationError: The outputs of a file differ from those of Keras.
        OSError: The folder is a file, holds an export already, or cannot be written.
    """
    settings = Settings(
        mode=mode,
        storage=storage,
        quantization=quantization,
        int8_io=int8_io,
        trained_ranges=checks.has_trained_ranges(tesla),
        percentages=percentages,
        batch_size=batch_size,
        inputs=inputs,
        representative_data=representative_data,
        validation_data=validation_data,
        labels=labels,
        normalization=normalization,
        tolerance=tolerance,
        input_shapes=input_shapes,
    )
    network = tesla.network
    interface = interfaces.of(network, tesla.graph, settings.input_shapes)
    percentages = checks.check_model(tesla, interface, settings)
    checks.warn_of_untrained(tesla, percentages)
    chosen = reference.choose(network, interface, settings, percentages[0])
    validation = checks.validation(tesla, interface, settings)
    with folder.whole(directory, overwrite) as temporary:
        converted = []
        for done, percentage in enumerate(percentages, 1):
            made = convert_percentage(network, interface, percentage, settings, chosen)
            converted.append(made)
            progress(f"{percentage} %: converted ({done}/{len(percentages)})")
        builder = _FileBuilder(network.name, settings, interface, chosen)
        files = builder.files(converted)
        progress("verifying: every percentage is run and compared with Keras")
        verified = verify_and_measure(files, validation)
        for file in verified:
            (temporary / file.name).write_bytes(file.content)
        bundle = from_manifest(directory, _manifest(verified))
        (temporary / folder.MANIFEST).write_text(bundle.to_json())
    return bundle


@dataclasses.dataclass(frozen=True, eq=False)
class _FileBuilder:
    """Builds the files of an export, not verified yet."""

    name: str
    settings: Settings
    interface: Interface
    examples: Examples

    def files(self, converted: list[Converted]) -> list[DraftFile]:
        storage = self.settings.stored
        if storage is not None:
            return [self._combined(converted, storage)]
        return [self._single(each) for each in converted]

    def _single(self, converted) -> DraftFile:
        """Returns a file of one percentage."""
        header = self._header([converted], [converted.graph()], lambda percentage: merge.DEFAULT)
        model = flatbuffer.unpack(converted.content)
        draft = writing.write_one(model, header, self._metadata(model), self.settings.labels)
        return DraftFile(f"p{converted.percentage}.tflite", draft, [converted])

    def _combined(self, converted, storage) -> DraftFile:
        """Returns the file of all percentages."""
        settings, ascending = self.settings, converted[::-1]
        graphs, unshared = storage.rewrite(
            [each.graph() for each in ascending],
            [each.float_graph() for each in ascending if each.floats is not None],
            settings.quantization,
        )
        if settings.percentage_input:
            align.align(graphs)
        header = self._header(converted, graphs[::-1], merge.key)
        header = dataclasses.replace(header, storage=storage.name, unshared_weights=unshared)
        merged = merge.merge(graphs, settings.percentage_input)
        metadata = self._metadata(merged.model)
        draft = combined_file.write(graphs, merged, storage, header, metadata, settings.labels)
        return DraftFile(_FILE, draft, converted, settings.percentage_input)

    def _header(self, converted, graphs, signature) -> Header:
        return Header(
            mode=self.settings.mode,
            storage=None,
            labels=self.settings.labels,
            quantization=self.settings.quantization,
            name=self.name,
            versions=_versions(),
            **self._ends(graphs[0]),
            percentages=tuple(
                PercentageHeader(
                    each.percentage,
                    signature(each.percentage),
                    each.multiply_adds,
                    each.not_counted,
                    _scales(graph, graph.inputs),
                    _scales(graph, graph.outputs),
                )
                for each, graph in zip(converted, graphs, strict=True)
            ),
        )

    def _ends(self, graph: PercentageGraph) -> dict:
        """The names, shapes and types of inputs and outputs."""
        ends = {
            side: {
                name: {"shape": [int(n) for n in tensor.shape], "dtype": flatbuffer.dtype(tensor)}
                for name, tensor in ((n, graph.subgraph.tensors[i]) for n, i in indices.items())
            }
            for side, indices in (("inputs", graph.inputs), ("outputs", graph.outputs))
        }
        for name, layer in self.interface.after.items():
            ends["inputs"][name]["after"] = layer
        return ends

    def _metadata(self, model) -> dict[str, bytes]:
        """The standard metadata of a model."""
        settings, inputs = self.settings, self.interface.of_file(self.examples.inputs)
        packed = standard.pack(
            model, self.name, __version__, inputs, settings.normalization, settings.labels
        )
        return {standard.ENTRY: packed}


def _scales(graph: PercentageGraph, indices: dict[str, int]) -> dict:
    """The scales of those inputs or outputs that are quantized."""
    tensors = {name: graph.subgraph.tensors[index] for name, index in indices.items()}
    return {
        name: {
            "scale": float(tensor.quantization.scale[0]),
            "zero_point": int(tensor.quantization.zeroPoint[0]),
        }
        for name, tensor in tensors.items()
        if tensor.quantization is not None
    }


def _manifest(files: list[VerifiedFile]) -> dict:
    """The values of the manifest: the headers of all files in one."""
    entries = [
        {**entry.values(), "file": file.name} for file in files for entry in file.header.percentages
    ]
    common = files[0].header.values()
    described = [
        {
            "file": file.name,
            "sha256": hashlib.sha256(file.content).hexdigest(),
            "bytes": len(file.content),
        }
        for file in files
    ]
    return {**common, "files": described, "percentages": entries}


def _versions():
    packages = ("tensorflow", "keras", "ai-edge-litert")
    return {"keras-tesla": __version__, **{p: importlib.metadata.version(p) for p in packages}}
