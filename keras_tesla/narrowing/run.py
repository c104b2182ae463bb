"""Running a plan on tensors or on KerasTensors."""

import keras
from keras import ops

from keras_tesla.graph import Tensor, tensors
from keras_tesla.narrowing.plan import Plan, Step


def bind_inputs(graph, inputs) -> dict[int, tuple]:
    """Returns {index of a tensor: (value, computed width)} for the inputs of a graph.

    Args:
        graph: The graph.
        inputs: The values: the structure of the model's inputs, or a dict by input name.

    Raises:
        ValueError: If the values do not fit the model's inputs.
    """
    if isinstance(inputs, dict) and not isinstance(graph.inputs, dict):
        missing = set(graph.input_names) - set(inputs)
        if missing:
            raise ValueError(
                f"The model takes the inputs {graph.input_names}; {sorted(missing)} are missing. "
                f"Received: {sorted(inputs)}"
            )
        values = [inputs[name] for name in graph.input_names]
    else:
        values = keras.tree.flatten(inputs)
    expected = tensors(graph.inputs)
    if len(values) != len(expected):
        raise ValueError(f"The model takes {len(expected)} inputs. Received: {len(values)}")
    return {t.index: (_fitted(v, t), None) for t, v in zip(expected, values, strict=True)}


def _fitted(value, tensor):
    """Does to an input what a Functional model does: its dtype, a last axis of 1 more or less."""
    if keras.backend.is_keras_tensor(value):
        return value
    mask = getattr(value, "_keras_mask", None)
    if mask is None:
        value = ops.convert_to_tensor(value, dtype=tensor.dtype)
    rank = len(tensor.shape)
    if len(value.shape) == rank - 1 and tensor.shape[-1] == 1:
        return ops.expand_dims(value, -1)
    if len(value.shape) == rank + 1 and value.shape[-1] == 1:
        return ops.squeeze(value, -1)
    return value


def _reached(argument):
    """A list without the tensors that are not needed."""
    return [x for x in argument if x is not None] if isinstance(argument, list) else argument


def run(plan: Plan, values: dict, steps: list[Step], call_step, take) -> dict:
    """Runs some steps of a plan.

    Args:
        plan: The plan.
        values: {index of a tensor: (value, computed width; None for all of it)}; not changed.
        steps: The steps to run, in order.
        call_step: Function `(step, args, kwargs) -> outputs` that computes one step.
        take: `keras_tesla.channels.take` or its like, which also hands on the Keras mask.

    Returns:
        `values` with the steps' outputs added.
    """
    values = dict(values)
    for step in steps:
        call = step.call
        reads = iter(zip(step.widths.inputs, step.widths.views, strict=True))

        def fill(x, reads=reads):
            if not isinstance(x, Tensor):
                return x
            want, view = next(reads)
            value, have = values[x.index] if want != 0 else (None, None)
            if want is None or want == 0:
                return value
            return take(value, view, view.count if have is None else have, want)

        args, kwargs = keras.tree.map_structure(fill, (call.args, call.kwargs))
        if 0 in step.widths.inputs:  # a concatenation that does not reach its last inputs
            args = tuple(_reached(x) for x in args)
            kwargs = {name: _reached(x) for name, x in kwargs.items()}
        outputs = call_step(step, args, kwargs)
        for tensor, value, width in zip(
            call.output_tensors, keras.tree.flatten(outputs), step.widths.outputs, strict=True
        ):
            values[tensor.index] = (value, width)
    return values


def outputs_of(plan: Plan, values: dict):
    """Returns the model's outputs in their structure; a list of one is unpacked, as in Keras."""
    outputs = keras.tree.map_structure(lambda t: values[t.index][0], plan.graph.outputs)
    return outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs
