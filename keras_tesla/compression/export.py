"""Compressed models as .tflite files."""

import tempfile

import numpy as np

from keras_tesla.compression import bridge, packages
from keras_tesla.tflite import convert, examples, verify
from keras_tesla.tflite.examples import InputSpec
from keras_tesla.tflite.settings import ConversionSettings


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
    is_qat = bridge.QUANTIZATION in kinds
    settings = ConversionSettings(
        quantization="int8" if is_qat and quantization is None else quantization,
        int8_io=int8_io,
        batch_size=batch_size,
        trained_ranges=is_qat,
        inputs=inputs,
        representative_data=representative_data,
    )
    chosen = examples.choose(_specs(model), settings)
    call = _function(model, settings.batch_size)
    content = _converted(call, model, settings, chosen.representative)
    expected = _expected(call, chosen.inputs, settings.batch_size)
    spread = None if settings.quantization is None else verify.SPREAD
    what = f"Model {model.name!r}"
    expectation = verify.Expectation(
        what, None, chosen.inputs, expected, verify.tolerance(model), spread
    )
    interpreted, _ = verify.interpret(content, [expectation])
    verify.compile_all([interpreted])
    return content


def _specs(model) -> list[InputSpec]:
    return [
        InputSpec(name, tuple(tensor.shape[1:]), tensor.dtype.name)
        for name, tensor in zip(model.input_names, model.inputs, strict=True)
    ]


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


def _converted(call, model, settings, representative):
    import tensorflow as tf

    module = tf.Module()
    module.kept = model.variables  # a SavedModel refuses those that nothing refers to
    with tempfile.TemporaryDirectory() as directory:
        tf.saved_model.save(module, directory, signatures={"serving_default": call})
        converter = tf.lite.TFLiteConverter.from_saved_model(directory)
        return convert.run(converter, settings.quantization, representative, settings.int8_io)


def _expected(call, inputs, batch_size):
    parts = [
        {name: y.numpy() for name, y in call(**_constants(batch)).items()}
        for batch in examples.batches(inputs, batch_size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _constants(batch):
    import tensorflow as tf

    return {name: tf.constant(x) for name, x in batch.items()}
