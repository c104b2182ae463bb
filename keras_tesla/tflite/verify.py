"""Running an exported file and comparing it with Keras."""

import dataclasses
import math

import keras
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from keras_tesla import graph
from keras_tesla.tflite import compiled, examples, runtime
from keras_tesla.tflite.graphs import integers

# Largest difference, relative to the largest reference value (at least 1), in a network of a few
# layers. A file computes in float32; a network that computes in less in Keras differs by that
# type's rounding.
_TOLERANCE = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}
# What quantization may cost: the root mean square of the differences over the standard deviation of
# the outputs. A well calibrated network has .01 to .05; at .25 its answers differ.
SPREAD = 0.25
_TRANSPOSED = tuple(getattr(keras.layers, f"Conv{rank}DTranspose") for rank in (1, 2, 3))


class VerificationError(RuntimeError):
    """The outputs of an exported file differ from those of Keras."""


@dataclasses.dataclass(frozen=True)
class Expectation:
    """A call of a signature, and the outputs that are expected of it.

    Args:
        what: A name for messages.
        signature: Name of the signature, None for the only one.
        inputs: {input name: array `(examples, ...)`}.
        outputs: {output name: array `(examples, ...)`}, as expected.
        allowed: Largest difference allowed, relative to the largest of `outputs` (at least 1).
        spread: Largest root mean square of the differences allowed, over the standard deviation of
            `outputs`; None where `allowed` decides, as in float32.
        advice: What to do where the difference is larger.
    """

    what: str
    signature: str | None
    inputs: dict
    outputs: dict
    allowed: float
    spread: float | None = None
    advice: str = ""


def tolerance(model) -> float:
    """Returns the relative difference allowed for a model.

    It is that of its coarsest layer, and at least what float32 loses in a deep network: a sum of n
    terms in another order differs by about `sqrt(n)` roundings of `u = 2^-24`, and the differences
    of all layers add up to `u * sum_l sqrt(n_l)`.

    Reference:
        Higham: Accuracy and Stability of Numerical Algorithms, 2nd edition, 2002, section 2.8 (the
        rule of thumb for random rounding errors).
    """
    dtypes = {layer.compute_dtype for layer in model.layers}
    of_type = max(_TOLERANCE.get(dtype, 1e-5) for dtype in dtypes)
    # A table that is looked up is no dot product.
    kernels = [w for w in model.weights if len(w.shape) > 1 and w.name != "embeddings"]
    found = {
        id(layer.kernel): _terms_of_transposed(layer)
        for layer in graph.inside(model)
        if isinstance(layer, _TRANSPOSED)
    }
    terms = [found.get(id(w)) or _terms(tuple(w.shape)) for w in kernels]
    return max(of_type, 2.0**-24 * sum(map(math.sqrt, terms)))


def _terms_of_transposed(layer):
    """The terms of a dot product of a transposed convolution, of which strides leave a part."""
    sizes = zip(layer.kernel_size, layer.strides, strict=True)
    return layer.kernel.shape[-1] * math.prod(-(-size // stride) for size, stride in sizes)


def _terms(kernel):
    """The terms of a dot product with a kernel."""
    # With depth multiplier 1, a depthwise convolution has its channels on the axis before the last.
    outputs = kernel[-2] if kernel[-1] == 1 and len(kernel) > 2 else kernel[-1]
    return math.prod(kernel) // max(1, outputs)


def example_inputs(model, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns random inputs for a model, of the kind that its first layers take.

    Args:
        model: A Functional `keras.Model` with known dimensions but the batch.
        count: Int, number of examples.
        seed: Int.

    Raises:
        ValueError: If a dimension is unknown.
    """
    return examples.random_inputs(examples.specs_of(graph.read(model)), count, seed)


def spread_allowed(content: bytes, inputs: dict, expected: dict, what: str, advice: str) -> float:
    """Returns by how much a quantized percentage may differ from Keras.

    Sharing one set of int8 weights must not cost more than quantization does. The limit is twice
    the spread of the separately quantized file, and at least 0.05, because the converter does not
    quantize small weights.

    Args:
        content: The converter's file.
        inputs: {input name: array `(examples, ...)`}.
        expected: {output name: array}, from Keras.
        what: A name for messages.
        advice: How to pass better inputs.

    Raises:
        VerificationError: If quantization itself changes what the network answers.
    """
    got = runtime.run(runtime.interpreter(content), inputs)
    spread = max(_spread(got[name], reference) for name, reference in expected.items())
    if not spread <= SPREAD:
        wide = integers.wide_tensors(content)
        if wide:
            advice = (
                f"int8 has 256 equal steps, and the numbers of {wide} may be of very different "
                "sizes: an exponential, a power or a quotient. Use an activation that LiteRT "
                "computes in int8 (relu, leaky_relu, gelu, silu, tanh, sigmoid), or "
                f"quantization='dynamic_range'. If the data are not typical: {advice}"
            )
        raise VerificationError(
            f"{what}: quantization changes the outputs by {spread:.2f} of their standard deviation,"
            f" more than {SPREAD}. {advice}, or leave `quantization` out. Nothing was written."
        )
    return max(2 * spread, 0.05)


@dataclasses.dataclass(frozen=True, eq=False)
class Interpreted:
    """A file that agreed with Keras in the Interpreter; CompiledModel has not run it yet.

    Args:
        content: The bytes of the .tflite file.
        expectations: The calls that were compared.
        differences: The largest absolute difference of each call.
        calls: The same calls for CompiledModel: [(signature, [{input name: array}, ..]), ..].
        details: The output details of the signature of each call.
    """

    content: bytes
    expectations: list[Expectation]
    differences: list[float]
    calls: list[tuple[str, list[dict]]]
    details: list[dict]


def interpret(content: bytes, expectations: list[Expectation]) -> tuple[Interpreted, Interpreter]:
    """Runs a file in the Interpreter, with and without XNNPACK.

    Args:
        content: The bytes of a .tflite file.
        expectations: The calls to compare.

    Returns:
        The input of `compile_all`; the interpreter with XNNPACK, for measurements.

    Raises:
        VerificationError: If outputs are missing, not finite where expected ones are, or differ
            by more than is allowed.
    """
    without = runtime.interpreter(content, xnnpack=False)
    differences = _run(without, expectations, "LiteRT without XNNPACK")
    calls, details = [], []
    (only, *_) = without.get_signature_list()
    for expectation in expectations:
        runner = without.get_signature_runner(expectation.signature)
        taken = runner.get_input_details()
        batches = list(runtime.batches(taken, runtime.encode(taken, expectation.inputs)))
        calls.append((expectation.signature or only, batches))
        details.append(runner.get_output_details())
    del runner, without  # one holds the weights of all percentages
    made = runtime.interpreter(content)
    differences = list(map(max, differences, _run(made, expectations, "LiteRT with XNNPACK")))
    return Interpreted(content, expectations, differences, calls, details), made


def _run(made, expectations, name) -> list[float]:
    return [
        _difference(expectation, runtime.run(made, expectation.inputs, expectation.signature), name)
        for expectation in expectations
    ]


def compile_all(files: list[Interpreted]) -> list[list[float]]:
    """Runs files in CompiledModel, all in one process.

    Returns:
        For each file the largest absolute difference of each call in any of the runtimes.

    Raises:
        VerificationError: As `interpret` does; also if CompiledModel refuses a file or crashes.
    """
    try:
        results = compiled.run([(file.content, file.calls) for file in files])
    except compiled.CompiledModelError as error:
        what = ", ".join(expectation.what for expectation in files[error.file].expectations)
        raise VerificationError(f"{what}: {error}\nNothing was written.") from error
    return [
        [
            max(
                known,
                _difference(expectation, _decoded(expectation, detail, parts), "CompiledModel"),
            )
            for known, expectation, detail, parts in zip(
                file.differences, file.expectations, file.details, result, strict=True
            )
        ]
        for file, result in zip(files, results, strict=True)
    ]


def _decoded(expectation, detail, parts):
    return runtime.decode(detail, parts, max(len(x) for x in expectation.inputs.values()))


def _difference(expectation, got, runner):
    if set(got) != set(expectation.outputs):
        raise VerificationError(
            f"{expectation.what}: {runner} returned {sorted(got)}, expected "
            f"{sorted(expectation.outputs)}."
        )
    worst = 0.0
    for name, reference in expectation.outputs.items():
        difference = np.max(np.abs(got[name].astype("float64") - reference), initial=0.0)
        largest = np.max(np.abs(reference), initial=0.0)
        measured, limit = difference, expectation.allowed * max(1.0, largest)
        unit = f" where the largest output is {largest:.3g}"
        if expectation.spread is not None:
            measured, limit = _spread(got[name], reference), expectation.spread
            unit = " of a standard deviation"
        if not measured <= limit:  # also when it is NaN
            advice = f"{expectation.advice}. " if expectation.advice else ""
            raise VerificationError(
                f"{expectation.what}: output {name!r} of {runner} differs from Keras by "
                f"{measured:.3g}{unit}, more than {limit:.3g}. {advice}Nothing was written."
            )
        worst = max(worst, float(difference))
    return worst


def _spread(got, reference):
    error = np.sqrt(np.mean(np.square(got.astype("float64") - reference)))
    # Outputs that are all alike have no deviation to compare with.
    return float(error / max(np.std(reference.astype("float64")), 1e-6))
