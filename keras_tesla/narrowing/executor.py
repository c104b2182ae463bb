"""Running a plan on tensors or on KerasTensors."""

import keras
from keras import ops

from keras_tesla.channels import Selection
from keras_tesla.graph import evaluate, filled, tensors
from keras_tesla.kinds.registry import kind_of
from keras_tesla.narrowing.plan import Plan, Step


def bind_inputs(graph, inputs) -> dict[int, tuple]:
    """Returns {index of a tensor: (value, computed channels)} for the inputs of a graph.

    Args:
        graph: The graph.
        inputs: The values: the structure of the model's inputs, or a dict by input name. As in
            Keras, a dict may have more keys.

    Raises:
        ValueError: If the values do not fit the model's inputs.
    """
    expected, names = tensors(graph.inputs), graph.input_names
    keys = sorted(graph.inputs) if _is_flat_dict(graph.inputs) else names
    if isinstance(inputs, dict) and (keys is not names or not isinstance(graph.inputs, dict)):
        missing = set(keys) - set(inputs)
        if missing:
            raise ValueError(
                f"The model takes the inputs {keys}; {sorted(missing)} are missing. "
                f"Received: {sorted(inputs)}"
            )
        values = [inputs[key] for key in keys]
    elif keys is not names and keys != list(graph.inputs) and len(keys) > 1:
        raise ValueError(
            f"The model takes a dict with the keys {list(graph.inputs)}, and a list could mean "
            f"another order. Received: {type(inputs).__name__}"
        )
    else:
        values = keras.tree.flatten(inputs)
    if len(values) != len(expected):
        raise ValueError(f"The model takes {len(expected)} inputs. Received: {len(values)}")
    return {
        t.index: (_fitted(value, t, name), None)
        for value, t, name in zip(values, expected, keys, strict=True)
    }


def _is_flat_dict(structure):
    return isinstance(structure, dict) and not any(map(keras.tree.is_nested, structure.values()))


def _fitted(value, tensor, name):
    """Does to an input what a Functional model does: its dtype, a last axis of 1 more or less."""
    if keras.backend.is_keras_tensor(value):
        return value
    if value is None:
        raise ValueError(
            f"Input {name!r} is None. Every percentage needs a tensor there, even if the input is "
            "optional. Pass one that changes nothing, such as zeros, or build the network without "
            "it."
        )
    mask = getattr(value, "_keras_mask", None)
    if mask is None:
        value = ops.convert_to_tensor(value, dtype=tensor.dtype)
    rank, received = len(tensor.shape), value.shape
    if len(received) == rank - 1 and tensor.shape[-1] == 1:
        value = ops.expand_dims(value, -1)
    elif len(received) == rank + 1 and received[-1] == 1:
        value = ops.squeeze(value, -1)
    pairs = zip(tensor.shape[1:], value.shape[1:], strict=False)  # Keras checks no batch size
    if len(value.shape) != rank or any(None not in (a, b) and a != b for a, b in pairs):
        raise ValueError(
            f"Input {name!r} must have the shape {(None, *tensor.shape[1:])}. "
            f"Received: {tuple(received)}"
        )
    return value


def run(plan: Plan, values: dict, steps: list[Step], call_step, take) -> dict:
    """Runs some steps of a plan.

    Args:
        plan: The plan.
        values: {index of a tensor: (value, computed channels; None for all of it)}; not changed.
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
        if want == Selection():
            return None
        value, have = values[call.input_tensors[position].index]
        if want is None:
            return value
        return take(value, layout, have or Selection.first(layout.count), want)

    def compute(call, args, kwargs):
        step = step_of[id(call)]
        args, kwargs = kind_of(call.operation).arguments(call, step.widths, args, kwargs)
        outputs = keras.tree.flatten(call_step(step, args, kwargs))
        return zip(outputs, step.widths.outputs, strict=True)

    return evaluate([step.call for step in steps], values, compute, read)


def outputs_of(plan: Plan, values: dict):
    """Returns the model's outputs in their structure; a list of one is unpacked, as in Keras."""
    first = {index: value for index, (value, _) in values.items()}
    outputs = filled(plan.graph.outputs, first)
    return outputs[0] if isinstance(outputs, (list, tuple)) and len(outputs) == 1 else outputs
