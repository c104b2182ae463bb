"""Attenuated gradients of a model's weights, exactly, in one forward pass.

At percentage p the layers that depend on the percentage get their weights with gradients multiplied
by S_p. What does not depend on it runs once for all percentages, so its weights cannot be lent this
way. But a weight of channel i there reaches percentage p through channel i of the tensors at which
the percentages diverge, and multiplying their gradients by S_p[i] has the same effect. For trained
layers before these it would be wrong, since their gradients are not attenuated: then the attenuated
layers run a second time, on fixed inputs, and only their weights are differentiated.
"""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_tesla.narrowing.gradients import Attenuated, attenuated, value_of
from keras_tesla.narrowing.narrowest import narrowest_percentages
from keras_tesla.narrowing.plan import Plan, Step
from keras_tesla.training.attenuation import GradientAttenuation


class Attenuator:
    """The factors of a model's weights.

    Args:
        attenuation: How much is left of a gradient.
        plans: The plans of all percentages of the model.
    """

    def __init__(self, attenuation: GradientAttenuation, plans: list[Plan]):
        self.percentages = [plan.percentage for plan in plans]
        self.of_channels = attenuation.factors
        self._narrowest = narrowest_percentages(plans)

    def narrowest(self, variable) -> dict[int, np.ndarray]:
        """Returns {axis: narrowest percentages} of a weight, for the axes that are cut."""
        return self._narrowest.get(id(variable), {})

    def factors(self, variable, percentage: int) -> list[np.ndarray]:
        """Returns arrays whose maximum is S of a weight at a percentage; none where that is 1."""
        if not variable.trainable:
            return []
        found = []
        for axis, narrowest in self.narrowest(variable).items():
            shape = [1] * len(variable.shape)
            shape[axis] = -1
            found.append(self.of_channels(percentage, narrowest).reshape(shape))
        # S does not decrease with the narrowest percentage: the maximum is that of the larger one.
        return [] if any((factor == 1).all() for factor in found) else found

    def lend(self, step: Step, percentage: int) -> list[tuple]:
        """Returns (variable, value with an attenuated gradient) of all variables of a call.

        None at all if no weight of the call is attenuated at this percentage.
        """
        variables = _variables(step)
        factors = [self.factors(v, percentage) for v in variables]
        if not any(factors):
            return []
        return [
            (v, attenuated([value_of(v)], [factor]) if factor else value_of(v))
            for v, factor in zip(variables, factors, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class _Group:
    """Weights of the shared part that have the same narrowest percentages.

    Args:
        narrowest: Int array, their narrowest percentages.
        weights: The ids of the weights.
        steps: The calls from these weights on, in running order.
        ends: The indices of the tensors at which the percentages part.
        direct: Bool, whether channel i of each of these tensors is that of the weights.
    """

    narrowest: np.ndarray
    weights: set[int]
    steps: list[Step]
    ends: set[int]
    direct: bool


class SharedPart:
    """What runs once for all active percentages.

    Values are {key: (value, computed channels)}. A key is the index of a tensor, or (number of a
    group, index) for what its layers' second run made of the same tensor.

    Args:
        attenuator: The factors.
        live: The `LivePlan` of the widest active percentage.
    """

    def __init__(self, attenuator: Attenuator, live):
        self._attenuator = attenuator
        self._live = live
        self._steps = [s for s in live.plan.steps if not s.depends]
        groups: dict[bytes, tuple] = {}
        for variable in _unique(self._steps):
            # Such a layer reads its inputs whole or channel by channel: one axis is cut.
            for narrowest in attenuator.narrowest(variable).values():
                groups.setdefault(narrowest.tobytes(), (narrowest, set()))[1].add(id(variable))
        self._groups = [self._group(narrowest, weights) for narrowest, weights in groups.values()]

    def _group(self, narrowest, weights):
        reached: set[int] = set()
        steps = []
        for step in self._steps:
            inputs = {t.index for t in step.call.input_tensors}
            if inputs & reached or any(id(v) in weights for v in _variables(step)):
                steps.append(step)
                reached.update(t.index for t in step.call.output_tensors)
        plan = self._live.plan
        ends = {t.index for s in plan.steps if s.depends for t in s.call.input_tensors} & reached
        # Between the weights and an end channels can only become more: equally many are the same.
        layouts = [plan.layouts[index] for index in ends]
        direct = all(layout is not None and layout.count == len(narrowest) for layout in layouts)
        return _Group(narrowest, weights, steps, ends, direct)

    @property
    def _trained(self) -> set[int]:
        return {id(v) for v in _unique(self._steps) if v.trainable}

    @property
    def _is_one_group(self) -> bool:
        """Whether all trained weights are of one group, so that nothing has to run twice."""
        groups = self._groups
        return len(groups) == 1 and groups[0].direct and self._trained <= groups[0].weights

    def run(self, values: dict, percentages, add_loss) -> dict[int, dict]:
        """Runs the shared part in training and returns {percentage: values}.

        Args:
            values: The model's inputs.
            percentages: The active ones.
            add_loss: Called with each activity loss.
        """
        groups = [] if self._is_one_group else list(enumerate(self._groups))
        # What is not trained, statistics and seeds: the second run starts from it again.
        state = [
            (v, ops.copy(v))
            for v in _unique(step for _, group in groups for step in group.steps)
            if not v.trainable
        ]
        values = self._live.run(
            values, self._steps, add_loss, training=True, lend=self._fix if groups else None
        )
        known = {percentage: dict(values) for percentage in percentages}
        for number, group in groups:
            once = self._again(group, values, state) if group.direct else None
            for percentage, of_percentage in known.items():
                second = once or self._again(group, values, state, percentage)
                of_percentage.update({(number, index): second[index] for index in group.ends})
        return known

    def _fix(self, step, percentage):
        """Lends the weights of all groups without a gradient: they get theirs in the second run."""
        fixed = {key for group in self._groups for key in group.weights}
        if not any(id(v) in fixed for v in _variables(step)):
            return []
        return [
            (v, ops.stop_gradient(value) if id(v) in fixed else value)
            for v in _variables(step)
            for value in [value_of(v)]
        ]

    def _again(self, group, values, state, percentage=None):
        """Runs a group's calls again; with a percentage its weights' gradients are attenuated."""
        made = {t.index for step in group.steps for t in step.call.output_tensors}
        inputs = {i: (_fixed(x), computed) for i, (x, computed) in values.items() if i not in made}
        lent = list(state)
        for variable in _unique(group.steps):
            if variable.trainable:
                value = value_of(variable)
                if id(variable) not in group.weights:
                    value = ops.stop_gradient(value)
                elif percentage is not None:
                    factors = self._attenuator.factors(variable, percentage)
                    value = attenuated([value], [factors]) if factors else value
                lent.append((variable, value))
        with keras.StatelessScope(state_mapping=lent):  # what is updated is thrown away
            return self._live.run(inputs, group.steps, lambda loss: None, training=True)

    def paths(self, index: int, values: dict) -> list[tuple] | None:
        """Returns the ways on which a tensor's gradient reaches the weights of the shared part.

        Args:
            index: The tensor's.
            values: What `run` returned for any percentage.

        Returns:
            A list of (value, narrowest percentages by which its gradient is attenuated, or None if
            it is not). None if the values differ from percentage to percentage.
        """
        value = values[index][0]
        groups = [(n, group) for n, group in enumerate(self._groups) if index in group.ends]
        if not self._trained:
            return []
        if groups and self._is_one_group:
            return [(value, groups[0][1].narrowest)]
        if not all(group.direct for _, group in groups):
            return None
        return [(value, None), *((values[n, index][0], group.narrowest) for n, group in groups)]

    def cut(self, live, values: dict) -> dict:
        """Returns what `run` returned for a percentage, as narrow as that reads it."""
        plain = live.cut({i: v for i, v in values.items() if not isinstance(i, tuple)})
        second = {k: live.cut({k[1]: v})[k[1]] for k, v in values.items() if isinstance(k, tuple)}
        return {**plain, **second}

    def part(self, live, values: dict, steps: list[Step]) -> dict:
        """Returns the values that steps of a percentage read, with attenuated gradients.

        Args:
            live: The `LivePlan` of the percentage.
            values: What `run`, or `cut`, returned for it.
            steps: The steps.
        """
        values = self.cut(live, values)
        read = {t.index for step in steps for t in step.call.input_tensors}
        for number, group in enumerate(self._groups):
            for index in group.ends & read:
                value, computed = values[index]
                factor = None
                if group.direct:
                    factor = self._at_end(live.plan, index, value, computed, group.narrowest)
                if self._is_one_group:
                    value = Attenuated([factor])([value])
                else:
                    second, _ = values[number, index]
                    value = Attenuated([None, factor])([value, second])
                values[index] = value, computed
        return {i: v for i, v in values.items() if not isinstance(i, tuple)}

    def _at_end(self, plan, index, value, computed, narrowest):
        """S of a tensor at which the percentages part."""
        layout = plan.layouts[index]
        factor = self._attenuator.of_channels(plan.percentage, narrowest)
        factor = factor if computed is None else factor[computed.indices()]
        shape = [1] * len(value.shape)
        shape[layout.axis] = -1
        return np.tile(factor, layout.repeats).reshape(shape)


def _variables(step):
    return getattr(step.call.operation, "variables", [])


def _unique(steps):
    """The variables that some calls use, each once."""
    return {id(v): v for step in steps for v in _variables(step)}.values()


def _fixed(x):
    """The tensor without a gradient, with its Keras mask."""
    fixed, mask = ops.stop_gradient(x), getattr(x, "_keras_mask", None)
    if mask is not None:
        fixed._keras_mask = mask
    return fixed
