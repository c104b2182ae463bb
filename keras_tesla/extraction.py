"""Turning a model at a percentage into a plain Keras model."""

import keras
import numpy as np
from keras import ops

from keras_tesla import cloning
from keras_tesla.channels import Selection, indices, take
from keras_tesla.graph import Weight, filled, tensors
from keras_tesla.kinds.kind import weight_at
from keras_tesla.kinds.registry import inherited_kind_of
from keras_tesla.layers import IncompleteDotProduct
from keras_tesla.names import unique_name
from keras_tesla.narrowing import executor
from keras_tesla.narrowing.plan import Plan
from keras_tesla.quantization.kernels import FakeQuantizedKernel
from keras_tesla.quantization.ranges import ActivationRange, fake_quantized


def extract(
    plan: Plan,
    name: str,
    batch_size: int | None = None,
    dtype: str | None = None,
    ranges: bool = True,
    private_apart: bool = False,
):
    """Builds the plain Keras model that computes a plan.

    It consists of stock layers with narrowed copies of the weights, the profile folded into the
    kernels, and of slices where several layers read different channels of one tensor. Keras saves,
    loads and exports it without keras_tesla.

    Args:
        plan: From `keras_tesla.narrowing.plan.narrow`.
        name: The new model's name.
        batch_size: Int to fix the batch, None to leave it open.
        dtype: Dtype policy of all layers, for example `"float32"`; None: that of each layer.
        ranges: Bool, whether the rounding of a quantization-aware model's activations is in it.
        private_apart: Bool, whether private profiles multiply the layers' inputs, so that kernels
            are the same at every percentage, instead of being folded into the kernels.

    Returns:
        A Functional `keras.Model`, not compiled.
    """
    made: dict[tuple, keras.Layer] = {}
    taken: set[str] = set(plan.graph.input_names)

    def make(step):
        operation, narrowed = step.call.operation, step.narrowed
        if not isinstance(operation, keras.Layer):
            if narrowed is None:
                return cloning.operation_like(operation)
            return cloning.rebuilt(narrowed.cls, narrowed.config)
        if narrowed is None:
            if inherited_kind_of(operation).depends:
                raise ValueError(
                    f"Layer {operation.name!r} ({type(operation).__name__}) depends on the "
                    f"percentage, and its kind does not say what it is at {plan.percentage} %, so "
                    "a model of this percentage alone would compute as at 100 %. Give the kind a "
                    "`narrow` that returns a layer without a percentage."
                )
            name = unique_name(step.call.name, taken)
            return cloning.copy_of(operation, name, dtype, step.call)
        config = {**narrowed.config, **({"dtype": dtype} if dtype else {})}
        config["name"] = unique_name(step.call.name, taken)
        return cloning.rebuilt(narrowed.cls, config)

    def call_step(step, args, kwargs):
        # A layer called twice stays one layer where both calls have the same width.
        original, narrowed = step.call.operation, step.narrowed
        if isinstance(original, Weight):
            # A constant of the operations that read it: no layer of Keras returns its weight.
            value = original.value if narrowed is None else narrowed.weights()["value"]
            return ops.convert_to_numpy(ops.cast(value, step.call.output_tensors[0].dtype))
        apart = private_apart and _has_private_profile(original) and not _has_mask(args[0])
        if apart:
            args = (_weighed(args[0], original, plan.percentage, step.widths.layouts[0]), *args[1:])
        if step.call.output_tensors[0].index in unmerged:
            (x,) = keras.tree.flatten((args, kwargs))
            if isinstance(original, keras.Layer) or not _has_mask(x):  # an operation drops it
                return x
        key = step.extracted_as
        if key in made and isinstance(original, keras.Layer):
            return made[key](*args, **kwargs)
        if isinstance(original, ActivationRange):
            if not ranges or step.call.input_tensors[0].index in unmerged:
                return args[0]
            # An operation of Keras with constants; the layer after it has the name.
            rounded = fake_quantized(args[0], *original.at(plan.percentage))
            return keras.layers.Identity(name=original.name)(rounded)
        operation = made[key] = make(step)
        outputs = operation(*args, **kwargs)
        if narrowed is not None:
            weights = narrowed.weights(private=False) if apart else narrowed.weights()
            for path, value in weights.items():
                # A copy: JAX would let the two models share a buffer and give it away.
                weight_at(operation, path).assign(np.array(ops.convert_to_numpy(value)))
            if isinstance(original, FakeQuantizedKernel):  # for the int8 converter; not saved
                operation.kernel_limit = original.limit_of(step.widths)
        elif isinstance(operation, keras.Layer):
            cloning.copy_weights(original, operation)
        if not any(map(keras.backend.is_keras_tensor, keras.tree.flatten((args, kwargs)))):
            outputs = operation(*args, **kwargs)  # of constants: computed at once, so once more
        return outputs

    graph = plan.graph
    # A Concatenate with one remaining input is the identity, and not in the model: other tools
    # refuse it. Its input is already quantized.
    unmerged = {
        s.call.output_tensors[0].index
        for s in plan.steps
        if Selection() in s.widths.inputs and sum(x != Selection() for x in s.widths.inputs) == 1
    }
    symbolic = {
        t.index: keras.Input(
            batch_shape=(batch_size or t.shape[0], *t.shape[1:]), dtype=t.dtype, name=n
        )
        for t, n in zip(tensors(graph.inputs), graph.input_names, strict=True)
    }
    inputs = filled(graph.inputs, symbolic)
    values = executor.bind_inputs(graph, inputs)
    values = executor.run(plan, values, plan.steps, call_step, _take_masked)
    return keras.Model(inputs, executor.outputs_of(plan, values), name=name)


def _has_private_profile(operation):
    return isinstance(operation, IncompleteDotProduct) and operation.private_profile


def _has_mask(x):
    return getattr(x, "_keras_mask", None) is not None


def _weighed(x, layer, percentage, layout):
    """The input of a layer times its private profile."""
    factors = np.tile(ops.convert_to_numpy(layer.private_factors(percentage)), layout.repeats)
    shape = [1] * len(x.shape)
    shape[layout.axis] = len(factors)
    return ops.multiply(x, factors.reshape(shape))


def _take_masked(x, layout, have, want):
    """`take` that passes on the Keras mask: a slice would drop it, a Dense layer keeps it."""
    if want == have or not _has_mask(x):
        return take(x, layout, have, want)
    # A kernel of columns of the identity: each output is one input, times 1, plus zeros.
    selection = keras.layers.Dense(layout.repeats * len(want), use_bias=False, dtype=x.dtype)
    outputs = selection(x)
    selection.set_weights([np.eye(x.shape[-1])[:, indices(layout, have, want)]])
    return outputs
