"""TESLA: one Keras model trained at several percentages at once."""

import types
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_tesla import extraction
from keras_tesla import graph as graphs
from keras_tesla.narrowing import run as runner
from keras_tesla.narrowing import running
from keras_tesla.narrowing.plan import narrow
from keras_tesla.percentages import check_percentage, check_percentages
from keras_tesla.training import aggregation as aggregations
from keras_tesla.training import attenuation as attenuations
from keras_tesla.training import checks, outputs, steps, turns
from keras_tesla.training import distillation as distillations
from keras_tesla.training.attenuator import Attenuator, SharedPart
from keras_tesla.training.view import PercentageView


@keras.saving.register_keras_serializable("keras_tesla")
class TESLA(steps.TrainStep, keras.Model):
    """Trains a model at several percentages of its dot-product terms, as tasks of one model.

    Each training step runs the network at every active percentage, aggregates the losses and
    applies the gradient of the aggregated loss. What does not depend on the percentage, everything
    before the first incomplete layer, runs once a step. All percentages are active at first (joint
    training); `callbacks.TaskWiseEarlyStopping` activates them one after the other, as in the
    paper.

    Args:
        model: A built Functional or Sequential model with at least one incomplete layer.
        percentages: Iterable of distinct ints, 1..100: the tasks. Default: 100, 90, .., 10.
        aggregation: How the losses become one: `"sum"`, `"exponential"`, a dict
            {percentage: weight}, or a callable {percentage: loss} -> scalar.
        distillation: None, `"in_place"`, or a `keras_tesla.training.distillation.
            InPlaceDistillation`: whether the widest active percentage teaches the others.
        gradient_attenuation: None, a number above 0 and at most 1, or a `keras_tesla.training.
            attenuation.GradientAttenuation`: what is left, at a distance of 5 percentage points, of
            the gradient that a wide percentage sends to the weights of a narrower one's channels.
        name: Optional name.

    Call arguments:
        inputs: What `model` takes.

    Returns (of a call):
        {"p100": outputs, .., "p10": outputs} for the active percentages.

    Raises:
        ValueError: At construction: a model without an IDP layer, subclassed, not built, or with
            an IDP layer hidden in another layer; an `IDPDense` that would leave out pixels after a
            `Flatten`; invalid percentages, or some for which a layer has no statistics or
            private numbers.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)), keras.layers.Dense(16, activation="relu"), IDPDense(3)])
    >>> tesla = TESLA(model, percentages=[100, 50])
    >>> tesla.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    >>> x, y = np.zeros((4, 8)), np.zeros(4)
    >>> sorted(tesla.evaluate(x, y, verbose=0, return_dict=True))
    ['loss', 'p100_loss', 'p50_loss']
    >>> tuple(tesla.at(50).layers[-1].kernel.shape)
    (8, 3)

    Reference:
        Chang, Lin, Ou Yang, Lei, Chen: TESLA, 2018, https://openreview.net/forum?id=H1K6Tb-AZ
    """

    optimizer: Any  # Keras sets it

    def __init__(
        self,
        model,
        percentages=range(100, 0, -10),
        aggregation="sum",
        distillation=None,
        gradient_attenuation=None,
        name=None,
    ):
        percentages = check_percentages(percentages)
        aggregation = aggregations.get(aggregation)
        if isinstance(aggregation, aggregations.Weighted):
            aggregation.check(percentages)
        graph = graphs.read(model)
        checks.check_graph(graph)
        checks.check_statistics(graph, percentages)
        super().__init__(name=name, dtype=model.dtype_policy, autocast=False)
        self.network = model
        self.percentages = percentages
        self.aggregation = aggregation
        self.distillation = distillations.get(distillation)
        self.gradient_attenuation = attenuations.get(gradient_attenuation)
        # Keras would track the views as sub-layers if it saw them in an attribute.
        self._hidden = types.SimpleNamespace(
            graph=graph,
            views={},
            divergence=None,  # of the outputs of two percentages
            distilled={},  # {percentage: mean of that divergence in the logs}
            compiled=None,
            jit_compile="auto",
            sum_up=False,
            seen=None,
            state={},
            functions={},
            attenuator=None,
            shared_parts={},
        )
        self._active = percentages
        plans = [self._view(percentage).live.plan for percentage in percentages]
        if self.gradient_attenuation is not None and self.gradient_attenuation.start < 1:
            self._hidden.attenuator = Attenuator(self.gradient_attenuation, plans)
        # A subclass that has its own loss of all percentages needs them all.
        own = type(self).compute_loss is TESLA.compute_loss and type(self).call is TESLA.call
        self._hidden.turns = own and turns.possible(self)
        self.built = True

    @property
    def graph(self) -> graphs.Graph:
        """The calls of the network."""
        return self._hidden.graph

    # The tasks.

    @property
    def active_percentages(self) -> tuple[int, ...]:
        """The percentages that train and are evaluated now, from the highest to the lowest."""
        return tuple(self._active)

    def activate(self, percentages):
        """Makes some percentages the active ones; the next step uses them.

        The first step with other percentages, variables to train or optimizer compiles again.

        Args:
            percentages: Iterable of distinct ints, among those of the constructor.

        Raises:
            ValueError: If one is not among them.
        """
        percentages = check_percentages(percentages)
        unknown = [p for p in percentages if p not in self.percentages]
        if unknown:
            raise ValueError(
                f"Only {list(self.percentages)} percent can be trained. Received: {unknown}"
            )
        if keras.backend.backend() == "jax":
            self.jax_state_sync()  # the state of the step so far goes back into the variables
        self._set_active(percentages)
        if self.compiled:
            self._use_function("train_function", self.make_train_function)

    def _set_active(self, percentages):
        self._active = percentages
        for percentage in percentages:
            self._view(percentage)
        if self.compiled:
            self._use_function("test_function", self.make_test_function)

    def reset_metrics(self):
        """Resets the metrics of all percentages, also of those that are not active now."""
        for metric in (*self._own_metrics(), *self._hidden.distilled.values()):
            metric.reset_state()
        for view in self._hidden.views.values():
            view.reset_metrics()

    def _use_function(self, name, make):
        """Sets Keras' compiled step; percentages that come again find theirs again."""
        trained = tuple(id(v) for v in self.trainable_variables)
        ranges = tuple(getattr(layer, "trained_range", None) for layer in self.graph.layers)
        key = (name, self._active, self._hidden.sum_up, id(self.optimizer), trained, ranges)
        functions = self._hidden.functions
        if key not in functions:
            make(force=True)
            # The optimizer is kept, so that no other one gets its id.
            functions[key] = getattr(self, name), self.optimizer
        setattr(self, name, functions[key][0])

    def _view(self, percentage) -> PercentageView:
        hidden = self._hidden
        if percentage not in hidden.views:
            view = PercentageView(self.network, narrow(self.graph, percentage))
            if hidden.compiled is not None:
                self._compile_view(view)
            if hidden.seen is not None:
                view.build_metrics(*hidden.seen)
            hidden.views[percentage] = view
            if self.distillation is not None:
                hidden.distilled[percentage] = keras.metrics.Mean(f"p{percentage}_distillation")
        return hidden.views[percentage]

    # Training.

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        *,
        jit_compile="auto",
        **kwargs,
    ):
        """Configures training, with the arguments of `keras.Model.compile`.

        Losses and metrics are computed for each percentage: `p10_loss`, `p10_accuracy`.

        Args:
            optimizer: As in Keras.
            loss: As in Keras: what one percentage's outputs are trained on.
            loss_weights: As in Keras: weights of a model's outputs, not of percentages.
            metrics: As in Keras; each percentage gets its own.
            weighted_metrics: Likewise.
            jit_compile: Bool or `"auto"`. On TensorFlow without a GPU `"auto"` means XLA for a
                model without convolutions: there it was measured to pay, with them to cost.
            **kwargs: All others, as in Keras.

        Raises:
            ValueError: If `distillation` has no divergence that fits the loss of an output.
        """
        hidden = self._hidden
        if self.distillation is not None:
            names = getattr(self.network, "output_names", None)
            of_network = outputs.read(self.graph, names)
            hidden.divergence = self.distillation.compiled(of_network, loss, loss_weights)
        resolved = jit_compile
        if jit_compile == "auto" and not kwargs.get("run_eagerly"):
            resolved = checks.jit_compile(self.graph)
        kwargs.update(
            loss=loss, loss_weights=loss_weights, metrics=metrics, weighted_metrics=weighted_metrics
        )
        super().compile(optimizer=optimizer, jit_compile=resolved, **kwargs)
        hidden.jit_compile = jit_compile
        hidden.compiled = {"optimizer": None, "jit_compile": resolved, **kwargs}
        hidden.seen = None
        hidden.functions.clear()
        hidden.shared_parts.clear()
        hidden.views.clear()  # `trainable` may have changed since they were made
        for percentage in self._active:
            self._view(percentage)

    def _compile_view(self, view):
        config = dict(self._hidden.compiled)
        for key in ("metrics", "weighted_metrics"):
            config[key] = keras.tree.map_structure(_copied, config.get(key))
        view.compile(**config)

    def call(self, inputs, training=None):
        known = self.shared_part(inputs, training)
        return {f"p{p}": self.part_of(p, known[p], training) for p in self._active}

    def shared_part(self, inputs, training=None) -> dict[int, dict]:
        """Runs what does not depend on the percentage, and what is run for all of them at once.

        Returns:
            {active percentage: {index of a tensor: (value, computed width)}}
        """
        lives = [self._view(p).live for p in self._active]
        values = runner.bind_inputs(self._hidden.graph, inputs)
        if self._attenuates(training):
            part = self._shared_part()
            known = part.run(values, self._active, self.add_loss)
            first = running.run_attenuated(lives, known, self._hidden.attenuator, part)
            return {percentage: {**known[percentage], **own} for percentage, own in first.items()}
        # The widest plan's shared part is as wide as any percentage needs it.
        shared = [s for s in lives[0].plan.steps if not s.depends]
        values = lives[0].run(values, shared, self.add_loss, training)
        first = running.run(lives, values)
        return {percentage: {**values, **own} for percentage, own in first.items()}

    def cut(self, percentage, known) -> dict:
        """Returns what `shared_part` returned for a percentage, as narrow as that reads it."""
        live = self._view(percentage).live
        return self._shared_part().cut(live, known) if self._attenuates(True) else live.cut(known)

    def part_of(self, percentage, known, training=None):
        """Runs the rest of the network at one percentage and returns its outputs.

        Args:
            percentage: One of the active percentages.
            known: What `shared_part`, or `cut`, returned for it.
            training: Bool or None.
        """
        live = self._view(percentage).live
        own = [s for s in live.plan.steps if s.depends and not s.is_done(known)]
        lend = None
        if self._attenuates(training):
            known = self._shared_part().part(live, known, own)
            lend = self._hidden.attenuator.lend
        return runner.outputs_of(live.plan, live.run(known, own, self.add_loss, training, lend))

    def _attenuates(self, training):
        return bool(training) and self._hidden.attenuator is not None

    def _shared_part(self) -> SharedPart:
        live, parts = self._view(self._active[0]).live, self._hidden.shared_parts
        if live not in parts:
            parts[live] = SharedPart(self._hidden.attenuator, live)
        return parts[live]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the aggregated loss of the active percentages plus the regularization."""
        losses = {p: self.loss_of(p, x, y, y_pred, sample_weight, training) for p in self._active}
        aggregate = aggregations.Sum() if self._hidden.sum_up else self.aggregation
        return aggregate(losses) + self.regularization()

    def regularization(self):
        """Returns a replica's share of what the layers themselves add to the loss; 0 if nothing."""
        return steps.distributed(sum(ops.sum(loss) for loss in self.losses))

    def loss_of(self, percentage, x, y, y_pred, sample_weight=None, training=True):
        """Returns what one percentage is trained on; its mean in the logs is on the targets.

        Args:
            percentage: One of the active percentages.
            x: As in `compute_loss`.
            y: Likewise.
            y_pred: Outputs of the model; those of this percentage and of the widest one are read.
            sample_weight: As in `compute_loss`.
            training: Bool, whether the widest one teaches; without it the divergence is only
                counted.
        """
        view, y_view = self._view(percentage), y_pred[f"p{percentage}"]
        if self._hidden.seen is None:
            self._hidden.seen = keras.tree.map_structure(_spec, (y, y_view, sample_weight))
            # Keras traces `compute_loss` until its own containers are built, on buffers that JAX
            # has given away by then.
            super().compute_loss(x, y, y_view, sample_weight, training)
        loss = view.compute_loss(x, y, y_view, sample_weight, training)
        batch = ops.shape(keras.tree.flatten(x)[0])[0]
        view.loss_tracker.update_state(steps.undistributed(loss), sample_weight=batch)
        if self.distillation is not None and percentage != self._active[0]:
            teacher = y_pred[f"p{self._active[0]}"]
            divergence = self._hidden.divergence(teacher, y_view, sample_weight)
            mean = self._hidden.distilled[percentage]
            mean.update_state(steps.undistributed(divergence), sample_weight=batch)
            if training:
                loss = self.distillation.combine(loss, divergence)
        return loss

    @property
    def takes_turns(self) -> bool:
        """Whether a step differentiates one percentage after the other, to take less memory.

        XLA orders a step by itself, and JAX always has it; so this is for TensorFlow and PyTorch
        without `jit_compile`.
        """
        return self._hidden.turns and len(self._active) > 1 and not self.jit_compile

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Updates the metrics of the active percentages and returns all results."""
        for percentage in self._active:
            self._view(percentage).compute_metrics(x, y, y_pred[f"p{percentage}"], sample_weight)
        if self._hidden.seen is None:  # see `compute_loss`
            super().compute_metrics(x, y, y_pred[f"p{self._active[0]}"], sample_weight)
        return self.get_metrics_result()

    def get_metrics_result(self):
        """Returns {"loss": .., "p100_loss": .., "p100_accuracy": .., ..}.

        With distillation also `p50_distillation`: the divergence of 50 % from the widest.
        """
        results = {m.name: m.result() for m in self._own_metrics()}
        for percentage in self._active:
            results.update(self._view(percentage).named_results())
        return results

    def _own_metrics(self):
        # Keras' container of the compiled metrics is only a template here: the views have copies.
        own = [m for m in super().metrics if m.name != "compile_metrics"]
        return own + [self._hidden.distilled[p] for p in self._active[1:] if self.distillation]

    @property
    def metrics(self):
        views = [self._view(p) for p in self._active] if self.compiled else []
        return self._own_metrics() + [m for view in views for m in view.own_metrics]

    def fit(self, *args, **kwargs):
        """Trains, as `keras.Model.fit` does.

        After an exception or an interruption the active percentages, the model's optimizer and the
        weights that train are those from before; progress of callbacks is forgotten, unless
        `callbacks.BackupAndRestore` has saved it. Weights, slots and the learning rate stay as they
        are.
        """
        if not self.compiled:
            return super().fit(*args, **kwargs)  # Keras says what is missing
        optimizer, active, trains = self.optimizer, self._active, self._what_trains()
        try:
            return super().fit(*args, **kwargs)
        except BaseException:
            for owner, name, value in trains:
                if getattr(owner, name) != value:
                    setattr(owner, name, value)
            self.callback_state = {}
            self.optimizer = optimizer
            self._set_active(active)
            self._use_function("train_function", self.make_train_function)
            raise

    def _what_trains(self) -> list[tuple]:
        """Returns (owner, attribute, value) of what says which weights get a gradient."""
        owners = {"trainable": self.network.variables, "trained_range": self.graph.layers}
        return [
            (owner, name, getattr(owner, name))
            for name, all_of_them in owners.items()
            for owner in all_of_them
            if hasattr(owner, name)
        ]

    # Using the trained model.

    def evaluate(self, *args, percentages=None, **kwargs):
        """Returns losses and metrics for each percentage, as `keras.Model.evaluate` does.

        Args:
            *args: As in Keras.
            percentages: Iterable of ints to evaluate at; also ones that were not trained, where
                the network is defined there. The aggregated `loss` is then their plain sum.
                Default: the active percentages.
            **kwargs: As in Keras.

        Raises:
            ValueError: If a percentage is invalid, or a layer has no statistics or private numbers
                for it.
        """
        if percentages is None:
            return super().evaluate(*args, **kwargs)
        active = self._active
        self._hidden.sum_up = True
        try:
            self._set_active(check_percentages(percentages))
            return super().evaluate(*args, **kwargs)
        finally:
            self._hidden.sum_up = False
            self._set_active(active)

    def predict(self, x, percentage=None, **kwargs):
        """Returns the predictions of the network at one percentage, as `keras.Model.predict` does.

        Args:
            x: As in Keras.
            percentage: Int, 1..100. Default: the highest trained one.
            **kwargs: As in Keras.

        Raises:
            ValueError: If the percentage is invalid, or a layer has no statistics or private
                numbers for it.
        """
        percentage = self.percentages[0] if percentage is None else check_percentage(percentage)
        return self._view(percentage).predict(x, **kwargs)

    def at(self, percentage):
        """Returns the network at a percentage as a plain Keras model with its own weights.

        The model consists of stock layers with narrowed weights, the profile folded in. Keras
        saves, loads and exports it without keras_tesla.

        Args:
            percentage: Int, 1..100; also one that was not trained, where the network is defined.

        Raises:
            ValueError: If the percentage is invalid, or a layer has no statistics or private
                numbers for it.
        """
        plan = narrow(self.graph, check_percentage(percentage))
        return extraction.extract(plan, f"{self.network.name}_p{percentage}")

    # Saving.

    @property
    def callback_state(self) -> dict:
        """{callback: {name: NumPy array}} that callbacks find again; saved with the weights.

        A run that `callbacks.BackupAndRestore` resumes goes on from it. A new `fit` does not.
        """
        return self._hidden.state

    @callback_state.setter
    def callback_state(self, state):
        self._hidden.state = dict(state)

    def save_own_variables(self, store):
        # TESLA has no variables of its own: all are the network's.
        for callback, state in self.callback_state.items():
            for name, value in state.items():
                store[f"{callback}.{name}"] = value

    def load_own_variables(self, store):
        states: dict[str, dict] = {}
        for key in store.keys():  # noqa: SIM118
            callback, _, name = key.partition(".")
            states.setdefault(callback, {})[name] = np.array(store[key])
        self.callback_state = states

    def get_config(self):
        return {
            "model": keras.saving.serialize_keras_object(self.network),
            "percentages": list(self.percentages),
            "aggregation": keras.saving.serialize_keras_object(self.aggregation),
            "distillation": keras.saving.serialize_keras_object(self.distillation),
            "gradient_attenuation": keras.saving.serialize_keras_object(self.gradient_attenuation),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for key in ("model", "aggregation", "distillation", "gradient_attenuation"):
            config[key] = keras.saving.deserialize_keras_object(config.get(key), custom_objects)
        return cls(**config)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config:
            config["jit_compile"] = self._hidden.jit_compile  # may be loaded on another backend
        return config

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)


def _spec(x):
    return (
        None if x is None else keras.KerasTensor(x.shape, keras.backend.standardize_dtype(x.dtype))
    )


def _copied(metric):
    """A metric has state, so every percentage needs its own; names and functions have none."""
    if isinstance(metric, keras.Metric):
        return type(metric).from_config(metric.get_config())
    return metric
