"""Running a plan on tensors or on KerasTensors."""

import keras
from keras import ops

from keras_tesla.graph import evaluate, filled, tensors
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
        take: `keras_tesla.channels.take` or a variant, which also passes on the Keras mask.

    Returns:
        `values` with the steps' outputs added.
    """
    step_of = {id(step.call): step for step in steps}

    def read(call, position, values):
        widths = step_of[id(call)].widths
        want, layout = widths.inputs[position], widths.layouts[position]
        if want == 0:
            return None
        value, have = values[call.input_tensors[position].index]
        if want is None:
            return value
        return take(value, layout, layout.count if have is None else have, want)

    def compute(call, args, kwargs):
        step = step_of[id(call)]
        if 0 in step.widths.inputs:  # a concatenation that does not reach its last inputs
            args = tuple(_reached(x) for x in args)
            kwargs = {name: _reached(x) for name, x in kwargs.items()}
        outputs = keras.tree.flatten(call_step(step, args, kwargs))
        return zip(outputs, step.widths.outputs, strict=True)

    return evaluate([step.call for step in steps], values, compute, read)


def outputs_of(plan: Plan, values: dict):
    """Returns the model's outputs in their structure; a list of one is unpacked, as in Keras."""
    first = {index: value for index, (value, _) in values.items()}
    outputs = filled(plan.graph.outputs, first)
    return outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs
