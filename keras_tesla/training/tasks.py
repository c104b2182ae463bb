"""The tasks of a TESLA model: one network at several percentages, and what each is trained on."""

import copy
from typing import Any

import keras
from keras import ops

from keras_tesla.graph import Graph
from keras_tesla.narrowing import executor, prefix_sum
from keras_tesla.narrowing.plan import narrow
from keras_tesla.training import checks, replicas
from keras_tesla.training.attenuator import Attenuator, SharedPart
from keras_tesla.training.view import PercentageView


class Tasks:
    """What a training step needs: each percentage's outputs, loss and metrics.

    A forward pass has two parts. The shared part is what does not depend on the percentage, and
    runs once; each percentage goes on from it by itself. A step may run all percentages and then
    differentiate, or one after the other.

    A view of a percentage is made when it is first needed, and made again after `compile`: what
    trains may have changed.

    Args:
        network: The model.
        graph: The calls of the model.
        percentages: The tasks, the highest first. All are active.
        distillation: How the widest active percentage teaches the others, or None.
        attenuation: The `GradientAttenuation`, or None.
    """

    def __init__(self, network, graph: Graph, percentages, distillation, attenuation):
        self.network = network
        self.graph = graph
        self.active = percentages
        self.views: dict[int, PercentageView] = {}
        self._distillation = distillation
        self._divergence: Any = None  # of the outputs of two percentages
        self._distilled: dict[int, keras.metrics.Mean] = {}  # that divergence in the logs
        self._compiled: dict | None = None
        self._first: int | None = None  # the percentage whose view counts with the user's metrics
        # The structure of (targets, outputs of a percentage, sample weights), known after a batch.
        self.loss_spec: tuple | None = None
        narrow(graph, percentages[-1])  # for the errors of a layer that cannot be
        self._attenuator: Attenuator | None = None
        if attenuation is not None and attenuation.start < 1:
            plans = [narrow(graph, percentage) for percentage in percentages]
            self._attenuator = Attenuator(attenuation, plans)
        self._shared_parts: dict = {}  # {live plan of the widest percentage: its `SharedPart`}

    def compile(self, config: dict, divergence, first: int):
        """Makes all views again, compiled so.

        Args:
            config: Arguments of `keras.Model.compile`.
            divergence: The function (teacher, student, sample_weight) -> d_p, or None.
            first: The percentage that updates the user's own metric objects. Others get copies.
        """
        self._compiled, self._divergence, self._first = config, divergence, first
        self.loss_spec = None
        self.views.clear()
        self._shared_parts.clear()
        self.activate(self.active)

    def activate(self, percentages: tuple[int, ...]):
        """Sets the active percentages, and makes their views outside of what is traced later."""
        self.active = percentages
        for percentage in percentages:
            self.view(percentage)

    def check_layers(self):
        """Refuses layers that were changed since the views were made, which compute as before.

        Once for each call from outside: every step asks for the views many times.
        """
        checks.check_not_quantized(self.graph.layers)  # a plan has the weights from before
        changed = {name: None for view in self.views.values() for name in view.live.changed()}
        if changed:
            raise ValueError(
                f"{list(changed)} got another argument, such as an activation, after the "
                "percentages were made. Call `tesla.compile(..)` again: they then compute what the "
                "layers do."
            )

    def view(self, percentage) -> PercentageView:
        """Returns the network at a percentage, with losses and metrics of its own."""
        if percentage not in self.views:
            view = PercentageView(self.network, narrow(self.graph, percentage))
            if self._compiled is not None:
                with view.scope():
                    config = self._config_of(percentage)
                view.compile(**config)
            if self.loss_spec is not None:
                view.build_metrics(*self.loss_spec)
            self.views[percentage] = view
            if self._distillation is not None:
                self._distilled[percentage] = keras.metrics.Mean(f"p{percentage}_distillation")
        return self.views[percentage]

    def _config_of(self, percentage):
        config = dict(self._compiled or {})
        if percentage != self._first:
            for key in ("metrics", "weighted_metrics"):
                config[key] = keras.tree.map_structure(_copied, config.get(key))
        return config

    # The forward pass.

    def shared_part(self, inputs, add_loss, training=None) -> dict[int, dict]:
        """Runs what does not depend on the percentage, and what is run for all of them at once.

        Args:
            inputs: What the network takes.
            add_loss: Called with each activity loss.
            training: Bool or None, as in the call of a Keras layer.

        Returns:
            {active percentage: {index of a tensor: (value, computed width)}}
        """
        lives = [self.view(p).live for p in self.active]
        values = executor.bind_inputs(self.graph, inputs)
        if training and self._attenuator is not None:
            part = self._attenuated_shared_part(self._attenuator)
            known = part.run(values, self.active, add_loss)
            first = prefix_sum.run_attenuated(lives, known, self._attenuator, part)
            return {p: {**known[p], **computed} for p, computed in first.items()}
        # The widest plan's shared part is as wide as any percentage needs it.
        shared = [s for s in lives[0].plan.steps if not s.depends]
        values = lives[0].run(values, shared, add_loss, training)
        first = prefix_sum.run(lives, values)
        return {p: {**values, **computed} for p, computed in first.items()}

    def cut(self, percentage, known) -> dict:
        """Returns what `shared_part` returned in training, as narrow as a percentage reads it."""
        live = self.view(percentage).live
        if self._attenuator is not None:
            return self._attenuated_shared_part(self._attenuator).cut(live, known)
        return live.cut(known)

    def outputs(self, percentage, known, add_loss, training=None):
        """Runs the rest of the network at one percentage and returns its outputs.

        Args:
            percentage: One of the active percentages.
            known: What `shared_part`, or `cut`, returned for it.
            add_loss: Called with each activity loss.
            training: Bool or None.
        """
        live = self.view(percentage).live
        rest = [s for s in live.plan.steps if s.depends and not s.is_done(known)]
        lend = None
        if training and self._attenuator is not None:
            known = self._attenuated_shared_part(self._attenuator).part(live, known, rest)
            lend = self._attenuator.lend
        return executor.outputs_of(live.plan, live.run(known, rest, add_loss, training, lend))

    def _attenuated_shared_part(self, attenuator) -> SharedPart:
        live = self.view(self.active[0]).live
        if live not in self._shared_parts:
            self._shared_parts[live] = SharedPart(attenuator, live)
        return self._shared_parts[live]

    # Losses and metrics.

    def loss(self, percentage, x, y, outputs, sample_weight=None, training=True):
        """Returns what one percentage is trained on; its mean in the logs is on the targets.

        Args:
            percentage: One of the active percentages.
            x: The batch's inputs.
            y: The targets.
            outputs: {"p50": outputs}; those of this percentage and of the widest one are read.
            sample_weight: As in Keras.
            training: Bool, whether the widest one teaches; without it the divergence is only
                counted.
        """
        view, own_outputs = self.view(percentage), outputs[f"p{percentage}"]
        if self.loss_spec is None:
            self.loss_spec = keras.tree.map_structure(_spec, (y, own_outputs, sample_weight))
        if view.loss is None:  # only layers add losses
            return ops.zeros(())
        loss = view.compute_loss(x, y, own_outputs, sample_weight, training)
        batch = ops.shape(keras.tree.flatten(x)[0])[0]
        view.loss_tracker.update_state(replicas.undistributed(loss), sample_weight=batch)
        if self._distillation is not None and percentage != self.active[0]:
            teacher = outputs[f"p{self.active[0]}"]
            divergence = self._divergence(teacher, own_outputs, sample_weight)
            mean = self._distilled[percentage]
            mean.update_state(replicas.undistributed(divergence), sample_weight=batch)
            if training:
                loss = self._distillation.combine(loss, divergence)
        return loss

    def update_metrics(self, x, y, outputs, sample_weight=None):
        """Updates the compiled metrics of the active percentages; arguments as in `loss`."""
        for percentage in self.active:
            of_percentage = outputs[f"p{percentage}"]
            self.view(percentage).compute_metrics(x, y, of_percentage, sample_weight)

    @property
    def distillation_metrics(self) -> list:
        """The means of the divergences of the active percentages, from the widest on."""
        return [self._distilled[p] for p in self.active[1:] if self._distillation is not None]

    @property
    def metrics(self) -> list:
        """All metrics of the active percentages."""
        views = [self.view(p) for p in self.active]
        return self.distillation_metrics + [m for view in views for m in view.own_metrics]

    def reset_metrics(self):
        """Resets the metrics of all percentages, also of those that are not active now."""
        for metric in self._distilled.values():
            metric.reset_state()
        for view in self.views.values():
            view.reset_metrics()


def _spec(x):
    return (
        None if x is None else keras.KerasTensor(x.shape, keras.backend.standardize_dtype(x.dtype))
    )


def _copied(metric):
    """A metric has state, so every percentage needs its own; names and functions have none.

    Not through its config, as `copy.deepcopy` does it: a user's class may have none or a part.
    """
    if not isinstance(metric, keras.Metric):
        return metric
    new = object.__new__(type(metric))
    memo = {id(metric): new}
    # So that variables of different percentages have different paths; as Keras names the scope.
    with keras.name_scope(metric.name.replace("/", ">")):
        for x in keras.tree.flatten(list(vars(metric).values())):
            if isinstance(x, keras.Metric):
                memo[id(x)] = _copied(x)
            elif isinstance(x, keras.Variable):
                memo[id(x)] = keras.Variable(
                    ops.copy(x),
                    dtype=x.dtype,
                    trainable=x.trainable,
                    aggregation=x.aggregation,
                    synchronization=x.synchronization,
                    name=x.name,
                )
            elif isinstance(x, keras.Layer):
                memo[id(x)] = x
    vars(new).update(copy.deepcopy(vars(metric), memo))
    new.reset_state()
    return new
