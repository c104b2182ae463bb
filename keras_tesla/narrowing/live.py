"""Running narrowed layers on the live weights of the full model."""

import concurrent.futures
import contextlib
import inspect

import keras
from keras import ops

from keras_tesla.channels import Selection, put, take
from keras_tesla.cloning import rebuilt
from keras_tesla.graph import takes_training
from keras_tesla.kinds.kind import Narrowed, weight_at
from keras_tesla.narrowing import executor
from keras_tesla.narrowing.gradients import value_of
from keras_tesla.narrowing.plan import Plan, Step
from keras_tesla.scope import percentage_scope


class LivePlan:
    """A plan whose narrowed layers read slices of the full model's variables.

    Each narrowed step has the stock layer that computes it. That layer holds no weights: while it
    runs, a stateless scope lends it the slices, so gradients flow to the full variables and every
    argument of the stock layer keeps its meaning. Statistics it updates are written back.

    Args:
        plan: The plan to run.
    """

    def __init__(self, plan: Plan):
        self.plan = plan
        # Keras lists the variables that have no value yet, for each thread, and gives them one when
        # the next stateless scope of that thread ends. These are never to have one.
        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as thread:
            building = {
                id(s): thread.submit(_unallocated_layer, s, s.narrowed)
                for s in plan.steps
                if s.narrowed is not None
            }
        self._layers = {key: layer.result() for key, layer in building.items()}
        self._made_from = [(s, _arguments(s)) for s in plan.steps if s.narrowed is not None]
        self._in_training = {id(s) for s in plan.steps if takes_training(s.call.operation)}

    def changed(self) -> list[str]:
        """Returns the layers that were given another argument since, such as an activation."""
        return [
            step.call.operation.name
            for step, before in self._made_from
            if any(value is not before.get(key) for key, value in _arguments(step).items())
        ]

    def cut(self, values: dict) -> dict:
        """Returns `values` without the channels that no call at this percentage reads.

        Only where the channels are on one axis once: elsewhere each reader takes its own.

        Args:
            values: {index of a tensor: (value, computed channels; None for all of it)}.
        """
        done = {}
        for index, (value, width) in values.items():
            layout, want = self.plan.layouts[index], self.plan.widths[index]
            if want and layout and layout.repeats == 1:
                have = width or Selection.first(layout.count)
                value, width = _take_masked(value, layout, have, want), want
            done[index] = value, width
        return done

    def run(self, values: dict, steps: list[Step], add_loss, training=None, lend=None) -> dict:
        """Runs some of the plan's steps; see `keras_tesla.narrowing.executor.run`.

        Args:
            values: {index of a tensor: (value, computed channels)}.
            steps: Steps of this plan, in order.
            add_loss: Called with each activity loss of a narrowed layer.
            training: Bool or None, passed to the layers that take it.
            lend: Function `(step, percentage) -> [(variable, value), ..]` for all variables of a
                step's layer, which then runs with these values; none: with its own.
        """

        def call_step(step, args, kwargs):
            # Explicitly, as in a Functional model: under JAX there is no outer layer to inherit
            # it from.
            if training is not None and id(step) in self._in_training:
                kwargs = {**kwargs, "training": training}
            lent = lend(step, self.plan.percentage) if lend else []
            if step.narrowed is None and not lent:
                return step.call.operation(*args, **kwargs)
            return self._call_lent(step, lent, args, kwargs, add_loss)

        with percentage_scope(self.plan.percentage):
            return executor.run(self.plan, values, steps, call_step, _take_masked)

    def _call_lent(self, step, lent, args, kwargs, add_loss):
        if step.narrowed is None:
            layer = step.call.operation
            state = [(v, v) for v in layer.variables if not v.trainable]
        else:
            layer = self._layers[id(step)]
            state = [(full, weight_at(layer, path)) for path, full in step.narrowed.state.items()]
            with keras.StatelessScope(lent) if lent else contextlib.nullcontext():
                weights = step.narrowed.weights()
                # Of a seed only the state, which no percentage cuts.
                weights = {**step.narrowed.state, **weights}
                lent = [(weight_at(layer, path), value_of(w)) for path, w in weights.items()]
        with keras.StatelessScope(state_mapping=lent, collect_losses=True) as scope:
            before = [scope.get_current_value(v) for _, v in state]
            outputs = layer(*args, **kwargs)
            after = [scope.get_current_value(v) for _, v in state]
        for (full, _), old, new in zip(state, before, after, strict=True):
            if new is not old:
                if new.shape != full.shape:
                    (computed,) = step.widths.outputs
                    new = put(ops.convert_to_tensor(full), ops.cast(new, full.dtype), computed)
                full.assign(new)
        for loss in scope.losses:
            add_loss(loss)
        return outputs


class _Take(keras.Layer):
    """`take` as a layer, because layers pass on the Keras mask."""

    def __init__(self, *arguments):
        super().__init__(autocast=False, name="take")
        self.supports_masking = True
        self._arguments = arguments

    def call(self, x):
        return take(x, *self._arguments)


def _take_masked(x, layout, have, want):
    return x if want == have else _Take(layout, have, want)(x)


def _unallocated_layer(step: Step, narrowed: Narrowed):
    """Builds the layer of a step without giving its variables a value."""
    layer = rebuilt(narrowed.cls, narrowed.config)
    if not isinstance(layer, keras.Layer):
        return layer  # an operation
    args, kwargs = step.input_shapes()
    with keras.StatelessScope(initialize_variables=False):
        names = inspect.signature(layer.build).parameters
        if len(names) == 1:  # the shape of the first argument, as in Keras
            layer.build(args[0] if args else next(iter(kwargs.values())))
        else:  # one for each argument with tensors, by name
            given = inspect.signature(layer.call).bind(*args, **kwargs).arguments
            shapes = {f"{name}_shape": shape for name, shape in given.items()}
            layer.build(**{name: shape for name, shape in shapes.items() if name in names})
    return layer


def _arguments(step):
    """What a layer holds of the arguments that its narrow form was made from."""
    return {k: v for k, v in vars(step.call.operation).items() if k in step.narrowed.config}
