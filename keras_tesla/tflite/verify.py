"""Running an exported file and comparing it with Keras."""

import keras
import numpy as np

from keras_tesla.tflite import runtime

# Largest difference, relative to the largest reference value (at least 1). A file computes in
# float32; a network that computes in less in Keras differs by that type's rounding.
_TOLERANCE = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}


class VerificationError(RuntimeError):
    """An exported file computed something else than Keras."""


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


def compare(content: bytes, inputs: dict, expected: dict, allowed: float, what: str) -> float:
    """Runs a file with and without XNNPACK and compares every output.

    Args:
        content: The bytes of a .tflite file with one signature.
        inputs: {input name: array `(examples, ...)`}.
        expected: {output name: array `(examples, ...)`}.
        allowed: Largest difference, relative to the largest expected value (at least 1).
        what: What is compared, for the message.

    Returns:
        The largest absolute difference.

    Raises:
        VerificationError: If outputs are missing, not finite where expected ones are, or differ
            by more.
    """
    worst = 0.0
    for xnnpack in (True, False):
        got = runtime.run(runtime.interpreter(content, xnnpack=xnnpack), inputs)
        runner = "LiteRT with XNNPACK" if xnnpack else "LiteRT without XNNPACK"
        if set(got) != set(expected):
            raise VerificationError(
                f"{what}: {runner} returned {sorted(got)}, expected {sorted(expected)}."
            )
        for name, reference in expected.items():
            difference = np.max(np.abs(got[name].astype("float64") - reference), initial=0.0)
            limit = allowed * max(1.0, np.max(np.abs(reference), initial=0.0))
            if not difference <= limit:  # also when it is NaN
                raise VerificationError(
                    f"{what}: output {name!r} of {runner} differs from Keras by {difference:.3g}, "
                    f"more than {limit:.3g}. Nothing was written."
                )
            worst = max(worst, float(difference))
    return worst
