"""Running an exported file and comparing it with Keras."""

import dataclasses

import keras
import numpy as np

from keras_tesla.tflite import compiled, runtime

# Largest difference, relative to the largest reference value (at least 1). A file computes in
# float32; a network that computes in less in Keras differs by that type's rounding.
_TOLERANCE = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}
# What quantization may cost: the root mean square of the differences over the standard deviation of
# the outputs. A well calibrated network has .01 to .05; at .25 its answers are others.
_QUANTIZED = 0.25


class VerificationError(RuntimeError):
    """An exported file computed something else than Keras."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A call of a signature and what must come out.

    Args:
        what: What it is, for the message.
        signature: Name of the signature, None for the only one.
        inputs: {input name: array `(examples, ...)`}.
        expected: {output name: array `(examples, ...)`}.
        allowed: Largest difference allowed, relative to the largest expected value (at least 1).
        spread: Largest root mean square of the differences allowed, over the standard deviation of
            the expected values; None where `allowed` decides, as in float32.
    """

    what: str
    signature: str | None
    inputs: dict
    expected: dict
    allowed: float
    spread: float | None = None


def tolerance(model) -> float:
    """Returns the relative difference allowed for a model: that of its coarsest layer."""
    dtypes = {layer.compute_dtype for layer in model.layers}
    return max(_TOLERANCE.get(dtype, 1e-5) for dtype in dtypes)


def example_inputs(model, examples: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Returns random inputs for a model: standard normal floats, integers 0 and 1.

    Args:
        model: A Functional `keras.Model` with known dimensions but the batch.
        examples: Int, how many.
        seed: Int.

    Raises:
        ValueError: If a dimension is unknown.
    """
    random = np.random.default_rng(seed)
    made = {}
    for tensor in model.inputs:
        shape = tuple(tensor.shape[1:])
        if None in shape:
            raise ValueError(
                f"Input {tensor.name!r} has shape {tensor.shape}. Export needs every dimension but "
                "the batch: give `keras.Input` a full shape."
            )
        if keras.backend.is_float_dtype(tensor.dtype):
            made[tensor.name] = random.standard_normal((examples, *shape)).astype(tensor.dtype)
        else:
            made[tensor.name] = random.integers(0, 2, (examples, *shape)).astype(tensor.dtype)
    return made


def spread_allowed(content: bytes, inputs: dict, expected: dict, what: str) -> float:
    """Returns what a quantized percentage may differ, from the converter's own file for it.

    Sharing one set of int8 weights must not cost more than quantization does: twice the spread of
    the separately quantized file, or a twentieth, since the converter leaves small weights alone.

    Args:
        content: The converter's file.
        inputs: {input name: array `(examples, ...)`}.
        expected: What Keras computes.
        what: What it is, for the message.

    Raises:
        VerificationError: If quantization itself changes what the network answers.
    """
    got = runtime.run(runtime.interpreter(content), inputs)
    spread = max(_spread(got[name], reference) for name, reference in expected.items())
    if not spread <= _QUANTIZED:
        raise VerificationError(
            f"{what}: quantization changes the outputs by {spread:.2f} of their standard deviation,"
            f" more than {_QUANTIZED}. Give more typical `representative_data`, or leave "
            "`quantization` out. Nothing was written."
        )
    return max(2 * spread, 0.05)


def compare(content: bytes, cases: list[Case]) -> list[float]:
    """Runs a file in the Interpreter, with and without XNNPACK, and in CompiledModel.

    Args:
        content: The bytes of a .tflite file.
        cases: What to run.

    Returns:
        The largest absolute difference of each case.

    Raises:
        VerificationError: If outputs are missing, not finite where expected ones are, or differ
            by more than a case allows.
    """
    worst = [0.0] * len(cases)
    for xnnpack in (True, False):
        made = runtime.interpreter(content, xnnpack=xnnpack)
        name = "LiteRT with XNNPACK" if xnnpack else "LiteRT without XNNPACK"
        for number, case in enumerate(cases):
            got = runtime.run(made, case.inputs, case.signature)
            worst[number] = max(worst[number], _difference(case, got, name))
    for number, got in enumerate(_compiled(content, made, cases)):
        worst[number] = max(worst[number], _difference(cases[number], got, "CompiledModel"))
    return worst


def _compiled(content, made, cases):
    calls, details = [], []
    for case in cases:
        runner = made.get_signature_runner(case.signature)
        raw = runtime.encode(runner.get_input_details(), case.inputs)
        batches = list(runtime.batches(runner.get_input_details(), raw))
        (only, *_) = made.get_signature_list()
        calls.append((case.signature or only, batches))
        details.append(runner.get_output_details())
    try:
        results = compiled.run(content, calls)
    except RuntimeError as error:
        raise VerificationError(f"{error}\nNothing was written.") from error
    for case, detail, parts in zip(cases, details, results, strict=True):
        yield runtime.decode(detail, parts, max(len(x) for x in case.inputs.values()))


def _difference(case, got, runner):
    if set(got) != set(case.expected):
        raise VerificationError(
            f"{case.what}: {runner} returned {sorted(got)}, expected {sorted(case.expected)}."
        )
    worst = 0.0
    for name, reference in case.expected.items():
        difference = np.max(np.abs(got[name].astype("float64") - reference), initial=0.0)
        limit = case.allowed * max(1.0, np.max(np.abs(reference), initial=0.0))
        measured = difference
        if case.spread is not None:
            measured, limit = _spread(got[name], reference), case.spread
        if not measured <= limit:  # also when it is NaN
            unit = "" if case.spread is None else " of a standard deviation"
            raise VerificationError(
                f"{case.what}: output {name!r} of {runner} differs from Keras by {measured:.3g}"
                f"{unit}, more than {limit:.3g}. Nothing was written."
            )
        worst = max(worst, float(difference))
    return worst


def _spread(got, reference):
    error = np.sqrt(np.mean(np.square(got.astype("float64") - reference)))
    # Outputs that are all alike have no deviation to compare with.
    return float(error / max(np.std(reference.astype("float64")), 1e-6))
