"""One percentage of a TESLA model, converted separately, and what Keras computes at it."""

import dataclasses

import numpy as np

from keras_tesla import extraction
from keras_tesla.analysis import cost
from keras_tesla.channels import Selection
from keras_tesla.narrowing.plan import narrow
from keras_tesla.tflite import convert, int8_activations, reference, verify
from keras_tesla.tflite.examples import Examples
from keras_tesla.tflite.graphs import integers, merge
from keras_tesla.tflite.graphs.percentage_graph import PercentageGraph
from keras_tesla.tflite.interface import Interface
from keras_tesla.tflite.settings import Settings


@dataclasses.dataclass(frozen=True, eq=False)
class Converted:
    """One percentage after conversion, and what it must compute.

    Args:
        percentage: Int, 1..100.
        multiply_adds: Of one example, without those of `not_counted`.
        not_counted: Names of the layers whose multiply-adds nobody knows.
        content: Bytes of a .tflite file, quantized as asked.
        floats: The same in float32; None where nothing needs it.
        expectation: What Keras computes, for the only signature of the file.
        selections: Which channels the calls read, filter and compute, from `Plan.selections`.
    """

    percentage: int
    multiply_adds: int
    not_counted: list[str]
    content: bytes
    floats: bytes | None
    expectation: verify.Expectation
    selections: dict[tuple, Selection]

    def graph(self) -> PercentageGraph:
        """Returns the graph of `content`."""
        return PercentageGraph(self.percentage, self.content, self.selections)

    def float_graph(self) -> PercentageGraph | None:
        """Returns the graph of `floats`."""
        if self.floats is None:
            return None
        return PercentageGraph(self.percentage, self.floats, self.selections)

    def expectation_of(self, signature: str | None) -> verify.Expectation:
        """Returns what a signature must compute."""
        return dataclasses.replace(self.expectation, signature=signature)

    def expectation_at(self, percentage: int) -> verify.Expectation:
        """Returns what must be computed for a percentage input that this percentage serves."""
        inputs = {**self.expectation.inputs, merge.PERCENTAGE: np.array([percentage], np.int32)}
        return dataclasses.replace(
            self.expectation,
            what=f"{percentage} % as an input",
            signature=merge.DEFAULT,
            inputs=inputs,
        )


def convert_percentage(
    network, interface: Interface, percentage: int, settings: Settings, examples: Examples
) -> Converted:
    """Converts a model at one percentage.

    Args:
        network: The model.
        interface: Its inputs, and what the file takes.
        percentage: Int, one of its percentages.
        settings: Those of the export.
        examples: Inputs of the network.

    Raises:
        ValueError: If the converter left float32 numbers in a quantization-aware model.
        ValueError: If Keras itself gives NaN or infinite numbers.
        ValueError: If the mode or the quantization cannot have the loop of a recurrent layer.
        VerificationError: If quantization itself changes what the network answers.
        Exception: The converter's.
    """
    plan = narrow(interface.graph, percentage)
    name, size = f"p{percentage}", settings.batch_size
    storage = settings.stored
    apart = storage is not None and storage.private_apart
    model = extraction.extract(plan, name, size, dtype="float32", private_apart=apart)
    if settings.mode == "percentage_input":
        _check_loops(model)
    what = f"{percentage} %"
    arrays = reference.outputs(network, interface, percentage, examples.inputs)
    outputs = dict(zip(convert.output_names(model), arrays, strict=True))
    inputs = interface.of_file(examples.inputs)
    representative = examples.representative
    if representative is not None:
        representative = [interface.of_file(batch) for batch in representative]
    strange = [name for name, y in outputs.items() if not np.isfinite(y).all()]
    if strange:
        raise ValueError(
            f"{what}: Keras itself gives NaN or infinite numbers in {strange}. {examples.advice}. "
            "Nothing was written."
        )
    if settings.quantization == "int8" and not settings.trained_ranges:
        int8_activations.replace(model)
    traced = convert.Traced(model, settings.trained_ranges)
    content = traced.convert(settings.quantization, representative, settings.int8_io)
    if settings.trained_ranges:
        _check_integers(PercentageGraph(percentage, content))
    floats = None
    if storage is not None and storage.needs_floats(settings.quantization):
        if settings.trained_ranges:  # that model contains the rounding of training
            unrounded = extraction.extract(plan, name, size, dtype="float32", ranges=False)
            traced = convert.Traced(unrounded)
        floats = traced.convert()
    spread = None
    if settings.quantization is not None:
        spread = verify.spread_allowed(content, inputs, outputs, what, examples.advice)
    allowed, advice = settings.tolerance, examples.advice
    if allowed is None:
        allowed = verify.tolerance(network)
    if spread is None:
        advice = (
            "If that is the rounding of float32, as where large numbers nearly cancel out, pass "
            f"a larger `tolerance`; it was {allowed:.3g}"
        )
    expectation = verify.Expectation(what, None, inputs, outputs, allowed, spread, advice)
    return Converted(
        percentage,
        cost.multiply_adds(model),
        cost.not_counted(model),
        content,
        floats,
        expectation,
        plan.selections(),
    )


def _check_loops(model):
    collecting = [x.name for x in convert.recurrent_layers(model) if x.return_sequences]
    if collecting:
        raise ValueError(
            f"{collecting} has return_sequences=True. What its loop collects grows, and LiteRT's "
            "CompiledModel does not run that under an IF, which mode='percentage_input' needs. "
            "Take mode='signatures' or 'per_percentage', or give the layer `unroll=True`."
        )


def _check_integers(graph):
    floats = integers.float_tensors(graph)
    if floats:
        raise ValueError(
            f"{graph.percentage} %: the converter left float32 numbers in the int8 network: "
            f"{floats}. Some layers have no int8 form with a single channel, such as Conv1D: "
            "make them wider, or leave this percentage out. Nothing was written."
        )
