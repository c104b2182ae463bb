"""Compressed models as .tflite files."""

import tempfile

import numpy as np

from keras_tesla.compression import bridge, packages
from keras_tesla.integers import check_integer
from keras_tesla.tflite import convert, verify

_EXAMPLES = 16
# Of a quantized file: root mean square of the differences over the outputs' standard deviation.
# Usual are .01 to .05, more in a network of few channels; at .25 its answers are others.
_SPREAD = 0.25


def to_tflite(
    model,
    quantization: str | None = None,
    representative_data=None,
    *,
    int8_io: bool = False,
    batch_size: int = 1,
    inputs=None,
) -> bytes:
    """Returns a model as the content of a .tflite file that was run and compared with it.

    The file has builtin operations only and one signature, `serving_default`, with inputs named as
    in the model and outputs named by their layer (as in the model for a dict of outputs). It was
    run in LiteRT's Interpreter, with and without XNNPACK, and in CompiledModel. A float32 file
    agrees within 1e-5 of the largest output; a quantized one may differ by a quarter of the
    outputs' standard deviation (root mean square), and usually does by .01 to .05.

    Args:
        model: A tf_keras model, without wrappers or from `quantization_aware`; or a model as
            `to_tf_keras` takes it.
        quantization: None: float32, but int8 for a model of `quantization_aware`.
            `"dynamic_range"`: int8 weights. `"int8"`: int8 weights and activations.
        representative_data: For `"int8"`, except after `quantization_aware`: typical inputs, an
            array `(examples, ...)` or {input name: array}; a few hundred.
        int8_io: Bool, whether the inputs and outputs of an int8 file are int8 too.
        batch_size: Positive int, the fixed batch size of the file.
        inputs: The inputs to compare on, in the form of `representative_data`. Default: the first
            of that, else 16 random examples.

    Raises:
        ValueError: If an argument does not fit, or the model still has wrappers of pruning or
            clustering.
        VerificationError: If the file computes something else than the model.
        Exception: The converter's, if the model needs an operation that is not built into LiteRT.
    """
    tf_keras, _ = packages.load()
    if not isinstance(model, tf_keras.Model):
        model = bridge.to_tf_keras(model)
    bridge.check_has_shape(model)
    kinds = {type(layer).__name__ for layer in model.layers}
    if kinds & {bridge.PRUNING, bridge.CLUSTERING}:
        raise ValueError(
            "The model still has the wrappers of training. Pass `strip(model)`. Received layers "
            f"of type: {sorted(kinds)}"
        )
    aware = bridge.QUANTIZATION in kinds
    _check(aware, quantization, representative_data, int8_io, batch_size)
    quantization = "int8" if aware else quantization
    size = batch_size * -(-_EXAMPLES // batch_size)
    representative = None
    if representative_data is not None:
        representative = _arrays(model, representative_data, "representative_data", batch_size)
        inputs = {n: x[:size] for n, x in representative.items()} if inputs is None else inputs
    given = _random(model, size) if inputs is None else _arrays(model, inputs, "inputs", batch_size)

    call = _function(model, batch_size)
    content = _converted(call, model, quantization, representative, int8_io, batch_size)
    expected = _expected(call, given, batch_size)
    spread = None if quantization is None else _SPREAD
    what = f"Model {model.name!r}"
    case = verify.Case(what, None, given, expected, verify.tolerance(model), spread)
    verify.compare(content, [case])
    return content


def _check(aware, quantization, representative_data, int8_io, batch_size):
    """Checks the arguments for a model that is `quantization_aware` or not."""
    if quantization not in convert.QUANTIZATIONS:
        raise ValueError(
            f"`quantization` must be one of {convert.QUANTIZATIONS}. Received: {quantization!r}"
        )
    check_integer("batch_size", batch_size)
    if aware and quantization == "dynamic_range":
        raise ValueError(
            "A `quantization_aware` model becomes an int8 file: leave `quantization` out. "
            f"Received: {quantization!r}"
        )
    if aware and representative_data is not None:
        raise ValueError(
            "A `quantization_aware` model has measured its ranges in training: leave "
            "`representative_data` out, and pass `inputs` to choose what is compared."
        )
    if not aware and (quantization == "int8") != (representative_data is not None):
        raise ValueError(
            "`representative_data`, typical inputs, goes with quantization='int8'. Received: "
            f"quantization={quantization!r} and "
            f"{'no' if representative_data is None else 'some'} representative_data"
        )
    if int8_io and not aware and quantization != "int8":
        raise ValueError(f"`int8_io` goes with an int8 file. Received: {quantization!r}")


def _function(model, batch_size):
    """Returns the model as a function of named inputs, with named outputs, for one batch size."""
    import tensorflow as tf

    signature = {
        name: tf.TensorSpec((batch_size, *tensor.shape[1:]), tensor.dtype, name)
        for name, tensor in zip(model.input_names, model.inputs, strict=True)
    }

    def call(**arrays):
        flat = [arrays[name] for name in model.input_names]
        outputs = model(tf.nest.pack_sequence_as(model.input, flat), training=False)
        return dict(zip(convert.output_names(model), tf.nest.flatten(outputs), strict=True))

    return tf.function(call, autograph=False).get_concrete_function(**signature)


def _converted(call, model, quantization, representative, int8_io, batch_size):
    import tensorflow as tf

    module = tf.Module()
    module.kept = model.variables  # a SavedModel refuses those that nothing refers to
    if representative is not None:  # else a `quantization_aware` model has its ranges
        representative = list(_batches(representative, batch_size))
    with tempfile.TemporaryDirectory() as directory:
        tf.saved_model.save(module, directory, signatures={"serving_default": call})
        converter = tf.lite.TFLiteConverter.from_saved_model(directory)
        return convert.run(converter, quantization, representative, int8_io)


def _expected(call, inputs, batch_size):
    parts = [
        {name: y.numpy() for name, y in call(**_constants(batch)).items()}
        for batch in _batches(inputs, batch_size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _constants(batch):
    import tensorflow as tf

    return {name: tf.constant(x) for name, x in batch.items()}


def _batches(arrays, size):
    for start in range(0, len(next(iter(arrays.values()))), size):
        yield {name: x[start : start + size] for name, x in arrays.items()}


def _arrays(model, given, what, batch_size):
    """{input name: array}, with as many examples as fill batches."""
    if not isinstance(given, dict) and len(model.inputs) == 1:
        given = {model.input_names[0]: given}
    if not isinstance(given, dict) or set(given) != set(model.input_names):
        raise ValueError(
            f"`{what}` must be a dict with an array for each of {model.input_names}. Received: "
            f"{sorted(given) if isinstance(given, dict) else type(given).__name__}"
        )
    checked = {}
    for name, tensor in zip(model.input_names, model.inputs, strict=True):
        array = np.asarray(given[name], tensor.dtype.as_numpy_dtype)
        usable = len(array) // batch_size * batch_size if array.ndim else 0
        if array.shape[1:] != tuple(tensor.shape[1:]) or not usable:
            raise ValueError(
                f"`{what}` for {name!r} must hold at least {batch_size} examples of shape "
                f"{tuple(tensor.shape[1:])}. Received an array of shape {array.shape}"
            )
        checked[name] = array[:usable]
    if len({len(x) for x in checked.values()}) > 1:
        raise ValueError(
            f"`{what}` must hold equally many examples for each input. Received: "
            f"{ {name: len(x) for name, x in checked.items()} }"
        )
    return checked


def _random(model, examples):
    random = np.random.default_rng(0)
    made = {}
    for name, tensor in zip(model.input_names, model.inputs, strict=True):
        shape = (examples, *tensor.shape[1:])
        if tensor.dtype.is_floating:
            made[name] = random.standard_normal(shape).astype(tensor.dtype.as_numpy_dtype)
        else:
            made[name] = random.integers(0, 2, shape).astype(tensor.dtype.as_numpy_dtype)
    return made
