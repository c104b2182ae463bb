"""What a TESLA model reports: its loss, and the losses and metrics of each percentage."""

from typing import TYPE_CHECKING, Any

import keras

# To a type checker the mix-in is the model that it completes.
_Model: Any = keras.Model if TYPE_CHECKING else object


class Logs(_Model):
    """The part of `TESLA` that updates, names and resets metrics."""

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Updates the metrics of the active percentages and returns all results."""
        tasks = self._tasks
        tasks.update_metrics(x, y, y_pred, sample_weight)
        if tasks.loss_spec is None:  # see `compute_loss`; Keras' method asks for the results, too
            outputs_of_one = y_pred[f"p{tasks.active[0]}"]
            self._build_template(super().compute_metrics, x, y, outputs_of_one, sample_weight)
        return self.get_metrics_result()

    def _build_template(self, compute, *args):
        """Has Keras build its own container, whose metrics are never used: the views' are."""
        before = {id(m) for m in super().metrics}
        compute(*args)
        built = {id(m) for m in super().metrics}
        self._untracked.template_metrics |= built - before

    def get_metrics_result(self):
        """Returns {"loss": .., "p100_loss": .., "p100_accuracy": .., ..}.

        With distillation also `p50_distillation`: the divergence of 50 % from the widest.
        """
        tasks = self._tasks
        metrics = self._metrics_of_all() + tasks.distillation_metrics
        results = {}
        for metric in metrics:
            result = metric.result()
            results.update(result if isinstance(result, dict) else {metric.name: result})
        for percentage in tasks.active:
            results.update(tasks.view(percentage).named_results())
        self._untracked.columns[tasks.active] = list(results)
        return results

    def _metrics_of_all(self):
        """The loss tracker and the metrics of layers: what is not of one percentage."""
        template = self._untracked.template_metrics
        return [m for m in super().metrics if m.name != "compile_metrics" and id(m) not in template]

    @property
    def metrics(self):
        return self._metrics_of_all() + (self._tasks.metrics if self.compiled else [])

    @property
    def metrics_names(self):
        """The columns of the logs, in the order of the list that `evaluate` returns.

        Columns that only a step of a subclass adds come after them, in alphabetical order.
        """
        if self._tasks.loss_spec is None:  # as in Keras: not known before a batch
            return [m.name for m in self._metrics_of_all()]
        columns = self._untracked.columns
        if self._tasks.active not in columns:
            self.get_metrics_result()
        return list(columns[self._tasks.active])

    def _in_order(self, logs, as_dict):
        """Returns the logs in the order of `metrics_names`, each once; a list as Keras returns it.

        Keras' own order goes by the names of the metrics, and all percentages have the same.
        """
        known = [name for name in self.metrics_names if name in logs]
        names = known + sorted(set(logs) - set(known))  # a `test_step` of a subclass may have more
        return {n: logs[n] for n in names} if as_dict else [logs[n] for n in names]

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """Takes a step on a batch, as `keras.Model.train_on_batch` does."""
        self._tasks.check_layers()
        logs = super().train_on_batch(x, y, sample_weight, class_weight, return_dict=True)
        return self._in_order(logs, return_dict)

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Evaluates a batch, as `keras.Model.test_on_batch` does."""
        self._tasks.check_layers()
        logs = super().test_on_batch(x, y, sample_weight, return_dict=True)
        return self._in_order(logs, return_dict)

    def reset_metrics(self):
        """Resets the metrics of all percentages, also of those that are not active now."""
        for metric in self._metrics_of_all():
            metric.reset_state()
        self._tasks.reset_metrics()
