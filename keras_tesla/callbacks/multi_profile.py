"""MultiProfile: ranges of percentages are trained one after the other, on weights of their own."""

import itertools
import warnings

import keras

from keras_tesla.callbacks import checks, optimizer_reset
from keras_tesla.channels import Selection
from keras_tesla.graph import tensors
from keras_tesla.integers import check_integer
from keras_tesla.layers import IncompleteDotProduct, PerRange
from keras_tesla.narrowing.plan import layouts, narrow
from keras_tesla.percentages import active_terms, check_percentages


class MultiProfile(keras.callbacks.Callback):
    """Trains a `TESLA` model range by range, from the lowest percentages to the highest.

    A stage trains one range, from the end of the range before it (or 0) to its own highest
    percentage, the only active one. Of an incomplete layer it trains the kernel where both the
    input and the output channel lie in the range, and the bias where the output channel does
    (`IDPDense.trained_range`). Where every percentage computes all outputs, because a complete
    layer reads them, the range cuts only the inputs and the first stage trains the bias. Lower
    channels are used as they are, bit for bit. Of the `PerRange` layers only the one of the range
    is used. So what a range computes never changes after its stage. Each stage begins with fresh
    optimizer slots. After the last one training stops, and all percentages are active again.

    The stage follows from the number of the epoch, so with `BackupAndRestore` a killed run
    continues in its stage.

    Args:
        epochs: Dict {highest percentage of the range: number of epochs}, such as
            `{30: 25, 100: 25}` for 0-30 and 30-100 %. The keys are those of every `PerRange` layer
            and trained percentages of the model.

    Raises:
        ValueError: At construction: not such a dict. When `fit` begins: a model that is not a
            `TESLA`, was not made for these ranges, concatenates channels of an incomplete layer, or
            has weights that every stage would train (layers with weights other than incomplete ones
            and PerRange; regularizers; constraints); an optimizer that moves weights without a
            gradient (`weight_decay`, `use_ema`, Ftrl). When an epoch begins after the last range.

    Example:

    >>> profiles = MultiProfile({30: 10, 100: 15})
    >>> profiles.range_of(9), profiles.range_of(10)
    ((0, 30), (30, 100))

    Reference:
        McDanel, Teerapittayanon, Kung, 2017, https://arxiv.org/abs/1710.07830
    """

    def __init__(self, epochs):
        super().__init__()
        if not isinstance(epochs, dict):
            raise ValueError(
                "`epochs` must be a dict {highest percentage of the range: epochs}, for example "
                f"{{30: 25, 100: 25}}. Received: {epochs!r}"
            )
        self.epochs = {
            p: check_integer(f"epochs[{p}]", epochs[p]) for p in reversed(check_percentages(epochs))
        }
        ends = list(itertools.accumulate(self.epochs.values()))
        # {range: its first epoch and the one after its last}
        self._stages = dict(
            zip(itertools.pairwise([0, *self.epochs]), itertools.pairwise([0, *ends]), strict=True)
        )
        self._range = None
        self._done = 0

    def range_of(self, epoch: int) -> tuple[int, int]:
        """Returns the range, two percentages, that trains in an epoch; the first epoch is 0.

        Raises:
            ValueError: If the epoch comes after the last range.
        """
        for trained, (_, end) in self._stages.items():
            if epoch < end:
                return trained
        raise ValueError(
            f"The ranges take {sum(self.epochs.values())} epochs in total. Received: a run that "
            f"begins with epoch {epoch + 1}. Give a range more epochs, or leave the callback out."
        )

    def on_train_begin(self, logs=None):
        checks.check_model(self)
        _check(self.model, list(self.epochs))
        self._range = None
        self._done = 0

    def on_epoch_begin(self, epoch, logs=None):
        trained = self.range_of(epoch)
        if trained == self._range:
            return
        if epoch == self._stages[trained][0] and self.model.optimizer.built:
            optimizer_reset.reset(self.model.optimizer, self.model.trainable_variables)
        self._range = trained
        self._train(trained, [trained[1]])
        self.model.reset_metrics()

    def on_epoch_end(self, epoch, logs=None):
        self._done = epoch + 1
        if self._done == sum(self.epochs.values()):
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self._range is None:
            return
        self._train(None, self.model.percentages)
        untrained = [
            f"{low}-{high}"
            for (low, high), (begin, _) in self._stages.items()
            if begin >= self._done
        ]
        if untrained:
            warnings.warn(
                f"Training ended before the ranges {untrained} %. Give `fit` "
                f"{sum(self.epochs.values())} epochs.",
                stacklevel=2,
            )

    def _train(self, trained_range, percentages):
        graph = self.model.graph
        widths = narrow(graph, min(self.epochs)).widths
        for call in graph.calls:
            layer = call.operation
            if isinstance(layer, IncompleteDotProduct):
                layer.trained_range = trained_range
                (outputs,) = call.output_tensors
                layer.complete_outputs = widths[outputs.index] is None
        self.model.activate(percentages)


def _check(model, highest):
    """Refuses a model in which a stage would change what an earlier one trained."""
    missing = [p for p in highest if p not in model.percentages]
    if missing:
        raise ValueError(
            f"The model must be trained at the end of each range. Received: ranges up to {highest}"
            f", TESLA(percentages={list(model.percentages)})"
        )
    _check_widths(model.graph, highest)
    ends = {t.index for t in tensors(model.graph.outputs)}
    for call in model.graph.calls:
        layer = call.operation
        if isinstance(layer, PerRange):
            if list(layer.ranges) != highest:
                raise ValueError(
                    f"The ranges of layer {layer.name!r} must be those of MultiProfile. Received: "
                    f"{list(layer.ranges)} and {highest}"
                )
        elif isinstance(layer, IncompleteDotProduct) and not layer.complete:
            if ends & {t.index for t in call.output_tensors}:
                raise ValueError(
                    f"Layer {layer.name!r} is an output of the model, and a range would train only "
                    "a part of its outputs. Make the last layer a `PerRange` of complete layers."
                )
        elif getattr(layer, "trainable_variables", None):
            raise ValueError(
                f"Every range would train the weights of layer {layer.name!r} "
                f"({type(layer).__name__}), so a later one would change what an earlier one "
                "learned. Use a `PerRange` layer, set `trainable=False`, or make the layer without "
                "trainable weights (`center=False, scale=False`)."
            )
    _check_only_gradients_move(model)


def _check_widths(graph, highest):
    """Refuses a graph in which a range computes outputs that only a later one would train."""
    where = layouts(graph)
    for percentage in highest:
        widths = narrow(graph, percentage).widths
        for call in graph.calls:
            if not isinstance(call.operation, IncompleteDotProduct):
                continue
            (y,) = call.output_tensors
            width, layout = widths[y.index], where[y.index]
            trained = Selection.first(active_terms(layout.count, percentage) if layout else 0)
            if width is not None and len(width | trained) > len(trained):
                raise ValueError(
                    f"At {percentage} % the model reads {len(width)} outputs of layer "
                    f"{call.operation.name!r}, and its range has the first {len(trained)}: a later "
                    "range would change what this one learned. Ranges cannot have a group "
                    "normalization after an incomplete layer, or a concatenation before one "
                    "without `input_parts`."
                )


def _check_only_gradients_move(model):
    """Refuses what changes a weight whose gradient is zero."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    moves = [name for name in ("weight_decay", "use_ema") if getattr(optimizer, name, None)]
    if moves or isinstance(optimizer, keras.optimizers.Ftrl):
        raise ValueError(
            "The optimizer would change the weights of ranges that are not trained. Use one "
            f"without weight decay and averages, such as Adam. Received: {type(optimizer).__name__}"
            + "".join(f", {name}={getattr(optimizer, name)}" for name in moves)
        )
    for layer in model.graph.layers:
        for name in ("regularizer", "constraint"):
            found = [
                v.path
                for v in layer.trainable_variables
                # That of a profile leaves the coefficients before the range as they are.
                if getattr(v, name) is not None and v is not getattr(layer, "coefficients", None)
            ]
            if found:
                raise ValueError(
                    f"A {name} would change the weights of ranges that are not trained. Make the "
                    f"layers without it. Received: a {name} of {found}"
                )
