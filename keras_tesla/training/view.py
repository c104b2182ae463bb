"""TESLA's network at one percentage, for predictions, losses and metrics."""

import keras
from keras import ops

from keras_tesla.narrowing import executor
from keras_tesla.narrowing.live import LivePlan
from keras_tesla.narrowing.plan import Plan


class PercentageView(keras.Model):
    """The network at one percentage, on the live weights.

    Args:
        network: The full model, whose variables are used.
        plan: How the network runs at the percentage.
    """

    def __init__(self, network, plan: Plan):
        # The network's own layers cast; TESLA and its views pass everything through.
        super().__init__(
            name=f"{network.name}_p{plan.percentage}", dtype=network.dtype_policy, autocast=False
        )
        self.network = network
        self.live = LivePlan(plan)
        if hasattr(network, "output_names"):
            self.output_names = network.output_names
        self.built = True

    def call(self, inputs, training=None):
        plan = self.live.plan
        values = executor.bind_inputs(plan.graph, inputs)
        values = self.live.run(values, plan.steps, self.add_loss, training)
        return executor.outputs_of(plan, values)

    def scope(self):
        """Returns the name scope of its metrics' variables: `p50/accuracy/total`."""
        return keras.name_scope(f"p{self.live.plan.percentage}")

    def compile(self, *args, **kwargs):
        with self.scope():
            super().compile(*args, **kwargs)

    def compute_loss(self, *args, **kwargs):
        with self.scope():
            return super().compute_loss(*args, **kwargs)

    def compute_metrics(self, *args, **kwargs):
        with self.scope():
            return super().compute_metrics(*args, **kwargs)

    @property
    def losses(self):
        # Weight regularization belongs to the shared weights: TESLA counts it once.
        return []

    def build_metrics(self, y, y_pred, sample_weight):
        """Creates the state of loss and metrics outside of whatever is traced later.

        Args:
            y: KerasTensor of the targets' shape, or a structure of them.
            y_pred: Of the outputs.
            sample_weight: Of the sample weights, or None.
        """
        zeros = keras.tree.map_structure(
            lambda t: t if t is None else ops.zeros([d or 1 for d in t.shape], t.dtype),
            (y, y_pred, sample_weight),
        )
        if self.loss is not None:
            self.compute_loss(None, *zeros)
        self.compute_metrics(None, *zeros)
        self.reset_metrics()

    @property
    def loss_tracker(self):
        """The `keras.metrics.Mean` of this percentage's loss."""
        return self.metrics[0]  # the place Keras documents for it

    @property
    def own_metrics(self) -> list:
        """The loss tracker and the compiled metrics, without those of the network's layers."""
        of_layers = {id(m) for m in self.network.metrics}
        return [m for m in self.metrics if id(m) not in of_layers]

    def named_results(self) -> dict:
        """Returns {name in TESLA's logs: value}, `p30_loss` and the compiled metrics."""
        prefix = f"p{self.live.plan.percentage}_"
        results = self.get_metrics_result()
        if self.loss is None:
            results.pop("loss")
        return {prefix + name: value for name, value in results.items()}
