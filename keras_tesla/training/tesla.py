"""TESLA: one Keras model trained at several percentages at once."""

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import keras

from keras_tesla import extraction
from keras_tesla import graph as graphs
from keras_tesla.narrowing.plan import narrow
from keras_tesla.percentages import check_percentage, check_percentages
from keras_tesla.training import aggregation as aggregations
from keras_tesla.training import attenuation as attenuations
from keras_tesla.training import (
    checks,
    fitting,
    logs,
    of_network,
    outputs,
    progress,
    replicas,
    saving,
    sequential_backward,
    steps,
    trainability,
)
from keras_tesla.training import distillation as distillations
from keras_tesla.training.compiled_steps import CompiledSteps
from keras_tesla.training.tasks import Tasks


@dataclasses.dataclass
class _Untracked:
    """What Keras must not see in an attribute: it tracks models as layers and wraps dicts.

    Args:
        graph: The calls of the network.
        tasks: The network at each percentage.
        aggregation: What makes one loss of all; while untrained percentages are evaluated, a sum.
        backward_can_be_sequential: Bool.
        callback_state: {callback: {name: NumPy array}}.
        compiled_steps: Keras' steps for each set of active percentages.
        steps: {active percentages: how many steps trained them}.
        template_metrics: The ids of the metrics in Keras' own containers, which count nothing.
        columns: {active percentages: the names in their logs}.
        jit_compile: As `compile` was given it.
        validation_freq: As `fit` was given it.
    """

    graph: graphs.Graph
    tasks: Tasks
    aggregation: Callable[[dict], Any]
    backward_can_be_sequential: bool = False
    callback_state: dict[str, dict] = dataclasses.field(default_factory=dict)
    compiled_steps: CompiledSteps = dataclasses.field(default_factory=CompiledSteps)
    steps: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    template_metrics: set[int] = dataclasses.field(default_factory=set)
    columns: dict[tuple, list[str]] = dataclasses.field(default_factory=dict)
    jit_compile: bool | str = "auto"
    validation_freq: Any = 1


@keras.saving.register_keras_serializable("keras_tesla")
class TESLA(
    of_network.OfNetwork,
    logs.Logs,
    fitting.Fitting,
    saving.Saved,
    steps.TrainStep,
    keras.Model,
):
    """Trains a model at several percentages of its dot-product terms, as tasks of one model.

    Each training step runs the network at every active percentage, aggregates the losses and
    applies the gradient of the aggregated loss. Everything before the first incomplete layer does
    not depend on the percentage and runs once per step. All percentages are active at first (joint
    training); `callbacks.TaskWiseEarlyStopping` activates them one after the other, as in the
    paper.

    Args:
        model: A built Functional or Sequential model with at least one incomplete layer.
        percentages: Iterable of distinct ints, 1..100: the tasks. Default: those that all layers
            with `percentages` have, as after `to_idp`; if there are none, 100, 90, .., 10.
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
        ValueError: At construction: a model without an IDP layer, subclassed, of a class with its
            own training step, not built, or with an IDP layer hidden in another; an `IDPDense`
            that would leave out pixels after a `Flatten`; invalid percentages, or some for which a
            layer has no statistics or private numbers.

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

    # What the constructor takes beside the model and its percentages, for files and copies.
    OBJECTS = ("aggregation", "distillation", "gradient_attenuation")
    _SUM = aggregations.Sum()  # of percentages for which the aggregation may have no weight

    def __init__(
        self,
        model,
        percentages=None,
        aggregation="sum",
        distillation=None,
        gradient_attenuation=None,
        name=None,
    ):
        graph = graphs.read(model)
        graphs.check_class(model)
        checks.check_graph(graph)
        percentages = checks.percentages_of(graph) if percentages is None else percentages
        percentages = check_percentages(percentages)
        aggregation = aggregations.get(aggregation)
        if isinstance(aggregation, aggregations.Weighted):
            aggregation.check(percentages)
        checks.check_statistics(graph, percentages)
        super().__init__(name=name, dtype=model.dtype_policy, autocast=False)
        self.network = model
        self.percentages = percentages
        self.aggregation = aggregation
        self.distillation = distillations.get(distillation)
        self.gradient_attenuation = attenuations.get(gradient_attenuation)
        if hasattr(model, "output_names"):
            self.output_names = model.output_names
        self._untracked = _Untracked(
            graph,
            Tasks(model, graph, percentages, self.distillation, self.gradient_attenuation),
            self.aggregation,
        )
        # A subclass that has its own loss of all percentages needs them all.
        inherits = type(self).compute_loss is TESLA.compute_loss and type(self).call is TESLA.call
        self._untracked.backward_can_be_sequential = inherits and sequential_backward.possible(self)
        self.built = True

    @property
    def graph(self) -> graphs.Graph:
        """The calls of the network.

        Raises:
            ValueError: If Keras has quantized a layer since.
        """
        checks.check_not_quantized(self._untracked.graph.layers)
        return self._untracked.graph

    @property
    def _tasks(self) -> Tasks:
        return self._untracked.tasks

    # The tasks.

    @property
    def active_percentages(self) -> tuple[int, ...]:
        """The percentages that train and are evaluated now, from the highest to the lowest."""
        return self._tasks.active

    def activate(self, percentages):
        """Makes some percentages the active ones; the next step uses them.

        The first step with other percentages, trainable variables or another optimizer compiles
        again.

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
            self._use_train_function()

    def _set_active(self, percentages):
        self._tasks.activate(percentages)
        if self.compiled:
            self._use_function("test_function", self.make_test_function)

    def _use_train_function(self):
        self._use_function("train_function", self.make_train_function, self.optimizer)

    def _use_function(self, name, make, *owners):
        trains = tuple(value for _, _, value in trainability.of(self.network, self.graph.layers))
        owners = (self._untracked.aggregation, *owners)
        self._untracked.compiled_steps.use(self, name, make, (self._tasks.active, trains), owners)

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
                model without convolutions: measured steps were faster there, and slower with
                convolutions. It means no XLA if a loss or a metric is not Keras' own and so may
                call Python.
            **kwargs: All others, as in Keras.

        Raises:
            ValueError: If `distillation` has no divergence that fits the loss of an output; on
                PyTorch if `jit_compile` is True.
        """
        divergence = None
        if self.distillation is not None:
            of_network = outputs.read(self.graph, getattr(self, "output_names", None))
            divergence = self.distillation.compiled(of_network, loss, loss_weights)
        resolved = jit_compile
        if jit_compile == "auto" and not kwargs.get("run_eagerly"):
            divergences = self.distillation and self.distillation.divergence
            functions = (loss, metrics, weighted_metrics, divergences, self.aggregation)
            resolved = checks.resolve_jit_compile(self.graph, functions)
        elif jit_compile is True and keras.backend.backend() == "torch":
            raise ValueError(
                "`jit_compile=True` does not work for TESLA on PyTorch: layers are narrowed within "
                "a call, which torch.compile cannot follow. Leave it out, or train on TensorFlow "
                "or JAX."
            )
        kwargs.update(
            loss=loss, loss_weights=loss_weights, metrics=metrics, weighted_metrics=weighted_metrics
        )
        super().compile(optimizer=optimizer, jit_compile=resolved, **kwargs)
        self._untracked.jit_compile = jit_compile
        self._untracked.compiled_steps.clear()
        self._untracked.template_metrics.clear()
        self._untracked.columns.clear()
        config = {"optimizer": None, "jit_compile": resolved, **kwargs}
        self._tasks.compile(config, divergence, first=self.percentages[0])

    def call(self, inputs, training=None):
        tasks = self._tasks
        tasks.check_layers()
        known = tasks.shared_part(inputs, self.add_loss, training)
        return {f"p{p}": tasks.outputs(p, known[p], self.add_loss, training) for p in tasks.active}

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Returns the aggregated loss of the active percentages plus the regularization."""
        tasks = self._tasks
        if tasks.loss_spec is None:
            # Keras traces `compute_loss` until its own containers are built, on buffers that JAX
            # has given away by then.
            outputs_of_one = y_pred[f"p{tasks.active[0]}"]
            self._build_template(super().compute_loss, x, y, outputs_of_one, sample_weight)
        losses = {p: tasks.loss(p, x, y, y_pred, sample_weight, training) for p in tasks.active}
        return self._untracked.aggregation(losses) + replicas.regularization(self)

    @property
    def backward_is_sequential(self) -> bool:
        """Whether a step differentiates one percentage after the other, to take less memory.

        XLA orders a step by itself, and JAX always has it; so this is for TensorFlow and PyTorch
        without `jit_compile`.
        """
        possible = self._untracked.backward_can_be_sequential
        several = len(self._tasks.active) > 1 and bool(self.trainable_weights)
        return possible and several and self.loss is not None and not self.jit_compile

    # Using the trained model.

    @progress.shown
    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        percentages=None,
        **kwargs,
    ):
        """Returns losses and metrics for each percentage, as `keras.Model.evaluate` does.

        Args:
            x: As in Keras.
            y: As in Keras.
            batch_size: As in Keras.
            verbose: As in Keras; `"all"` shows all columns in the bar.
            sample_weight: As in Keras.
            steps: As in Keras.
            callbacks: As in Keras.
            return_dict: Bool, whether to return a dict by name. Default: a list in the same order,
                that of `metrics_names`.
            percentages: Iterable of ints to evaluate at; also ones that were not trained, where
                the network is defined there. The aggregated `loss` is then their plain sum.
                Default: the active percentages.
            **kwargs: What Keras passes to itself.

        Raises:
            ValueError: If a percentage is invalid, or a layer lacks numbers for it or was changed.
        """
        self._tasks.check_layers()
        active = self._tasks.active
        kwargs.update(return_dict=True, callbacks=callbacks, steps=steps)
        try:
            if percentages is not None:
                self._untracked.aggregation = self._SUM
                self._set_active(check_percentages(percentages))
            found = super().evaluate(x, y, batch_size, verbose, sample_weight, **kwargs)
            return self._in_order(found, return_dict)
        finally:
            if percentages is not None:
                self._untracked.aggregation = self.aggregation
                self._set_active(active)

    def predict(self, *args, percentage=None, **kwargs):
        """Returns the predictions of the network at one percentage, as `keras.Model.predict` does.

        Args:
            *args: As in Keras: the second one is the batch size, not the percentage.
            percentage: Int, 1..100. Default: the highest trained one.
            **kwargs: As in Keras.

        Raises:
            ValueError: If the percentage is invalid, or a layer has no statistics or private
                numbers for it.
        """
        return self._view(percentage).predict(*args, **kwargs)

    def predict_on_batch(self, x, percentage=None):
        """Returns the predictions for a batch, as `predict` does.

        Args:
            x: As in Keras.
            percentage: As in `predict`.
        """
        return self._view(percentage).predict_on_batch(x)

    def _view(self, percentage):
        percentage = self.percentages[0] if percentage is None else check_percentage(percentage)
        self._tasks.check_layers()
        return self._tasks.view(percentage)

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
