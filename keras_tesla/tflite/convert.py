"""From a plain Keras model to the bytes of a .tflite file."""

import contextlib
import warnings

import keras
import numpy as np

from keras_tesla.names import unique_name


def convert(model, quantization=None, representative=None, int8_io=False) -> bytes:
    """Converts a plain Keras model with the official converter, builtin operations only.

    The file has one signature, `serving_default`, with the inputs and outputs named as in Keras
    (an unnamed output has the name of its layer).

    Args:
        model: A Functional `keras.Model` of stock layers, on the TensorFlow backend.
        quantization: None for float32; `"dynamic_range"`: int8 weights; `"int8"`: int8 weights and
            activations.
        representative: For `"int8"`: list of {input name: array with a batch}, on which the ranges
            of the activations are measured. None for a quantization-aware model, which has them.
        int8_io: Bool, whether inputs and outputs of an `"int8"` file are int8 too.

    Raises:
        Exception: The converter's, if the model needs an operation that is not built into LiteRT,
            or, for `"int8"`, has no int8 form.
    """
    trained_ranges = quantization == "int8" and representative is None
    return Traced(model, trained_ranges).convert(quantization, representative, int8_io)


class Traced:
    """A plain Keras model as a TensorFlow function, from which several files may be converted.

    Args:
        model: A Functional `keras.Model` of stock layers, on the TensorFlow backend.
        trained_ranges: Bool, whether the model is a quantization-aware one that becomes int8.
    """

    def __init__(self, model, trained_ranges: bool = False):
        self._name = model.name
        self._recurrent = [layer.name for layer in recurrent_layers(model)]
        with self._noted():
            self._function = _concrete_function(model, _limits(model) if trained_ranges else {})

    def convert(self, quantization=None, representative=None, int8_io=False) -> bytes:
        """Returns a .tflite file; see `convert`."""
        import tensorflow as tf

        if quantization == "int8" and representative is not None and (loops := self._loops()):
            raise ValueError(
                f"{self._recurrent or loops} has a loop, as a recurrent layer makes it, and "
                "TensorFlow's converter crashes where it measures the ranges of one. Take "
                "quantization='dynamic_range' or None, or give the layer `unroll=True`."
            )
        with self._noted():
            # The function holds constants only, so nothing needs to be kept alive for it.
            converter = tf.lite.TFLiteConverter.from_concrete_functions(
                [self._function], tf.Module()
            )
            return run(converter, quantization, representative, int8_io)

    def _loops(self):
        """The names of the loops; layers of the user's own may have some."""
        graph = self._function.graph.as_graph_def()
        nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
        return [node.name for node in nodes if node.op in ("While", "StatelessWhile")]

    @contextlib.contextmanager
    def _noted(self):
        try:
            yield
        except Exception as error:
            error.add_note(
                f"{self._name!r} could not be converted with LiteRT's builtin operations."
            )
            raise


def recurrent_layers(model) -> list:
    """Returns the layers of a model that become loops: recurrent ones that are not unrolled."""
    found = []
    for layer in model.layers:
        one_way = layer.forward_layer if isinstance(layer, keras.layers.Bidirectional) else layer
        if isinstance(one_way, keras.layers.RNN) and not one_way.unroll:
            found.append(layer)
    return found


def run(converter, quantization, representative, int8_io) -> bytes:
    """Runs a converter for builtin operations only; the arguments are those of `convert`."""
    import tensorflow as tf

    operations = tf.lite.OpsSet.TFLITE_BUILTINS
    if quantization is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "int8" and representative is not None:
        operations = tf.lite.OpsSet.TFLITE_BUILTINS_INT8
        converter.representative_dataset = lambda: iter(representative)
    if int8_io:
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
    converter.target_spec.supported_ops = [operations]
    with warnings.catch_warnings():
        # The converter itself runs the interpreter that it declares deprecated.
        warnings.filterwarnings("ignore", ".*tf.lite.Interpreter is deprecated")
        return converter.convert()


def _limits(model):
    """{id of a kernel: its largest |w|, which the converter cannot know from a slice}."""
    rounded = (layer for layer in model.layers if hasattr(layer, "kernel_limit"))
    return {id(layer.kernel): layer.kernel_limit for layer in rounded}


def _constant(value, limit):
    """A weight; with a limit, the largest |w|, the int8 range for each channel or for all."""
    import tensorflow as tf

    constant = tf.constant(value)
    if limit is None:
        return constant
    symmetric = {"num_bits": 8, "narrow_range": True}
    limit = np.where(limit > 0, limit, 1.0).astype("float32")
    if not limit.ndim:
        limit = float(limit.item())
        return tf.quantization.fake_quant_with_min_max_vars(constant, -limit, limit, **symmetric)
    # The operation takes channels on the last axis only.
    scaled = [axis for axis in range(limit.ndim) if limit.shape[axis] > 1] or [limit.ndim - 1]
    order = [axis for axis in range(limit.ndim) if axis not in scaled] + scaled
    last = tf.transpose(constant, order)
    merged = tf.reshape(last, [*last.shape[: -len(scaled)], limit.size])
    merged = tf.quantization.fake_quant_with_min_max_vars_per_channel(
        merged, -limit.ravel(), limit.ravel(), **symmetric
    )
    return tf.transpose(tf.reshape(merged, last.shape), np.argsort(order))


def _concrete_function(model, limits):
    """Returns the model as a TensorFlow function of its named inputs.

    Its weights are constants. A Keras model has them in variables that the converter does not
    freeze; exporting a SavedModel first would freeze them, but takes five times as long.
    """
    import tensorflow as tf

    trained, others = (
        [(np.array(keras.ops.convert_to_numpy(v)), limits.get(id(v))) for v in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    )

    @tf.function(
        autograph=False,
        # Keras would leave the batch open: a Flatten would compute its shape at run time.
        input_signature=[tf.TensorSpec(t.shape, t.dtype, t.name) for t in model.inputs],
    )
    def call(*arrays):
        inputs = keras.tree.pack_sequence_as(model.input, arrays)
        outputs, _ = model.stateless_call(
            [_constant(*v) for v in trained],
            [_constant(*v) for v in others],
            inputs,
            training=False,
        )
        return dict(zip(output_names(model), keras.tree.flatten(outputs), strict=True))

    return call.get_concrete_function()


def output_names(model) -> list[str]:
    """Returns the names of a model's outputs, flat: keys of a dict, else names of the layers.

    Further outputs of one layer are called `name_1`, `name_2`, ..
    """
    if isinstance(model.output, dict):
        nested = [name for name, y in model.output.items() if not hasattr(y, "shape")]
        if nested:
            raise ValueError(
                "A .tflite file has one level of outputs. Give the model a flat dict or list of "
                f"them. Received structures under: {nested}"
            )
        return sorted(model.output)
    taken: set[str] = set()
    return [unique_name(name, taken) for name in model.output_names]
