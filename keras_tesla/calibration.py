"""Batch normalization statistics for percentages that were not trained."""

import dataclasses
import warnings
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from keras_tesla import cloning, functional, streams
from keras_tesla.integers import check_integer
from keras_tesla.layers import IDPBatchNormalization, IncompleteDotProduct
from keras_tesla.narrowing import executor
from keras_tesla.narrowing.live import LivePlan
from keras_tesla.narrowing.plan import Plan, narrow
from keras_tesla.percentages import check_percentages
from keras_tesla.training.aggregation import Weighted
from keras_tesla.training.tesla import TESLA


def recalibrate(tesla, data, percentages, steps=None, batch_size=128):
    """Returns a copy of a TESLA model with batch normalization statistics measured on data.

    At each of `percentages` the network runs over the same batches, as in inference, except that
    each `IDPBatchNormalization` normalizes by the mean and variance of the batch. Its statistics
    are then the mean of those over the B batches, of n_b examples each:

    `mean_p = sum_b n_b * mean_pb / sum_b n_b`, `variance_p = sum_b n_b * variance_pb / sum_b n_b`

    So a network can be used at percentages that it was not trained at, and trained percentages get
    statistics of the final weights. Statistics at other percentages, and all other weights, are
    copied. If a layer has private numbers (`private_affine`, `private_bias`, `private_profile`), a
    new percentage gets values between those of its two neighbours, or those of the nearest.
    `keras.layers.BatchNormalization` has one set of statistics for all percentages, which stays.

    Args:
        tesla: A `TESLA` model whose network has an `IDPBatchNormalization` layer, or another one
            with private numbers. It is not changed.
        data: Inputs, as `keras.Model.predict` takes them: an array, a structure of arrays for a
            model of several inputs, or a `tf.data.Dataset`, `keras.utils.PyDataset`, torch
            `DataLoader` or generator of batches `(x,)`, `(x, y)` or `(x, y, sample_weight)`; only
            x is used. Also a function that returns one of these, and batches as the
            `representative_data` of an export has them: an array, a list or a dict of one for each
            input. It is read once. A few dozen batches as large as in training are enough.
        percentages: Iterable of distinct ints, 1..100, to measure statistics at.
        steps: Positive int, the number of batches to use. Default: all of the data.
        batch_size: Positive int, the examples in a batch cut from arrays.

    Returns:
        A new `TESLA`, not compiled, whose `percentages` are those of `tesla` and the given ones. A
        percentage that is new to an aggregation by weights has weight 0 in it.

    Raises:
        ValueError: If `tesla` is not a `TESLA` model, has neither an `IDPBatchNormalization` nor
            private numbers, a percentage is invalid, `steps` or `batch_size` is not positive, or
            the data hold no batch.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8,)), IDPDense(4), IDPBatchNormalization([100, 50]), IDPDense(3)])
    >>> tesla = TESLA(model, percentages=[100, 50])
    >>> tesla = recalibrate(tesla, np.ones((6, 8)), percentages=[30])
    >>> tesla.percentages
    (100, 50, 30)

    Reference:
        Yu, Huang: Universally Slimmable Networks and Improved Training Techniques, 2019,
        https://arxiv.org/abs/1903.05134
    """
    if not isinstance(tesla, TESLA):
        raise ValueError(
            "`recalibrate` takes a `keras_tesla.TESLA` model; wrap the network in one. "
            f"Received: {tesla!r}"
        )
    percentages = check_percentages(percentages)
    if data is None:
        raise ValueError("`data` must hold the inputs of the network. Received: None")
    check_integer("batch_size", batch_size)
    if steps is not None:
        check_integer("steps", steps)
    if not any(_has_percentages(layer) for layer in tesla.graph.layers):
        raise ValueError(
            "There is nothing to recalibrate: the network has no `IDPBatchNormalization` layer, "
            "which has statistics for each percentage, and no private numbers. "
            f"Received layers: {[layer.name for layer in tesla.graph.layers]}"
        )
    calibrated = _extended(tesla, percentages)
    if not any(isinstance(layer, IDPBatchNormalization) for layer in tesla.graph.layers):
        return calibrated
    for variable, value in measured_statistics(calibrated, data, percentages, steps, batch_size):
        variable.assign(value)
    return calibrated


def measured_statistics(tesla, data, percentages, steps, batch_size):
    """Yields (variable, measured value) of the batch normalization statistics of a model.

    Args:
        tesla: A `TESLA` model with an `IDPBatchNormalization`. It is not changed.
        data: As in `recalibrate`, likewise the others.
        percentages: Those of the model's layers to measure at.
        steps: Int or None.
        batch_size: Int.
    """
    plans = [_by_batch_statistics(narrow(tesla.graph, p)) for p in percentages]
    yield from _measure(tesla.network, plans, data, steps, batch_size)


def _extended(tesla, percentages):
    """Returns a copy of `tesla` that also has variables for the statistics at `percentages`."""
    network, graph = functional.opened(tesla.network)
    calls = graph.first_calls

    def clone_layer(layer):
        if not _has_percentages(layer):
            return cloning.copy_of(layer, call=calls.get(id(layer)))
        union = sorted({*layer.percentages, *percentages})
        return type(layer).from_config({**cloning.config_of(layer), "percentages": union})

    network, pairs = cloning.clone(network, clone_layer)
    for old, new in pairs:
        if _has_percentages(old):
            for source, target in _common_variables(old, new):
                target.assign(np.array(ops.convert_to_numpy(source)))
            _interpolate_private(old, new)
        else:
            cloning.copy_weights(old, new)
    settings, aggregation = tesla.settings, tesla.aggregation
    if isinstance(aggregation, Weighted):
        weights = {**dict.fromkeys(percentages, 0), **aggregation.weights}
        settings["aggregation"] = Weighted(weights)
    union = {*tesla.percentages, *percentages}
    extended = type(tesla)(network, union, name=tesla.name, **settings)
    extended.trained_steps = tesla.trained_steps
    return extended


def _has_percentages(layer):
    if isinstance(layer, IncompleteDotProduct):
        return layer.private_bias or layer.private_profile
    return isinstance(layer, IDPBatchNormalization)


def _common_variables(old, new):
    """Yields (variable of `old`, that of `new` with the same meaning), except private numbers.

    Their names do not tell: the statistics without a percentage belong to the highest.
    """
    if isinstance(old, IncompleteDotProduct):
        private = {id(v) for x in (old, new) for v in _private(x)}
        shared = [[v for v in x.weights if id(v) not in private] for x in (old, new)]
        yield from zip(*shared, strict=True)
        return
    for source, target in [(old.gamma, new.gamma), (old.beta, new.beta)]:
        if source is not None:
            yield source, target
    for percentage in old.percentages:
        yield from zip(old.statistics(percentage), new.statistics(percentage), strict=True)


def _private(layer):
    return [v for p in layer.percentages for v in layer.private_variables(p).values()]


def _interpolate_private(old, new):
    """Gives `new` the private numbers of `old`, in between those of its two neighbours."""
    for percentage in new.percentages:
        for name, target in new.private_variables(percentage).items():
            places = np.arange(target.shape[0])
            if name == "profile":  # where the blocks begin: percentages cut them further
                places = np.cumsum([0, *new.blocks(percentage)[:-1]])
            target.assign([_interpolated(old, name, place, percentage) for place in places])


def _interpolated(old, name, place, percentage):
    """A private number of a channel, between those of the percentages that have one for it."""
    known = {p: _of_channels(old, name, p) for p in sorted(old.percentages)}
    found = {p: values[place] for p, values in known.items() if place < len(values)}
    return np.interp(percentage, list(found), list(found.values())) if found else 0.0


def _of_channels(layer, name, percentage):
    """The private numbers of a percentage, one for each channel that they are for."""
    values = ops.convert_to_numpy(layer.private_variables(percentage)[name])
    return np.repeat(values, layer.blocks(percentage)) if name == "profile" else values


def _by_batch_statistics(plan: Plan) -> Plan:
    """Returns a plan in which batch normalizations, told to train, take the batch's statistics.

    With momentum 0 the batch's statistics are all that is left of the moving ones. Renormalization
    is clipped to none.
    """

    def changed(step):
        if not isinstance(step.call.operation, IDPBatchNormalization):
            return step
        config = {**step.narrowed.config, "momentum": 0.0, "trainable": True}
        if step.call.operation.renorm:
            config["renorm_momentum"] = 0.0
            config["renorm_clipping"] = {"rmin": 1.0, "rmax": 1.0, "dmax": 0.0}
        return dataclasses.replace(step, narrowed=dataclasses.replace(step.narrowed, config=config))

    return dataclasses.replace(plan, steps=[changed(step) for step in plan.steps])


def _measure(network, plans, data, steps, batch_size):
    """Yields (variable, mean over the batches of data) of all statistics that the plans use."""
    model = _BatchStatistics(network, plans)
    data = streams.opened(data)
    if isinstance(data, Iterator):  # Keras takes tuples of inputs and targets only
        data = _tuples(data, len(network.inputs))
    try:
        with warnings.catch_warnings():
            # A generator may end early.
            warnings.filterwarnings("ignore", "Your input ran out of data")
            sizes, measured = model.predict(data, batch_size=batch_size, steps=steps, verbose=0)
    except UnboundLocalError as error:  # what Keras makes of data without a batch
        raise ValueError(f"`data` must hold at least one batch. Received: {data!r}") from error
    for variables, values in zip(model.statistics, measured, strict=True):
        for variable, value in zip(variables, values, strict=True):
            yield variable, np.average(value.astype("float64"), axis=0, weights=sizes)


def _tuples(batches, count):
    """Yields the inputs of each batch as Keras' generators do, `(x,)`."""
    for batch in batches:
        x = streams.inputs_of(batch, count)
        if isinstance(x, (list, tuple)):
            x = tuple(x) if count > 1 else x[0]  # TensorFlow takes no lists
        yield (x,)


class _BatchStatistics(keras.Model):
    """The statistics of a batch; a model, so that Keras feeds it any data and compiles it.

    Args:
        network: The full model.
        plans: From `_by_batch_statistics`, all for the graph of `network`.

    Returns (of a call):
        `(size, statistics)`: the number of examples, shape `(1,)`, and for each of
        `self.statistics` its values in the batch, each of shape `(1, channels)`.
    """

    def __init__(self, network, plans):
        super().__init__(name="batch_statistics", dtype=network.dtype_policy, autocast=False)
        self.network = network
        self._lives = [LivePlan(plan) for plan in plans]
        self.built = True

    @property
    def statistics(self):
        """The lists of variables that are measured, for each percentage and layer."""
        return [
            layer.statistics(live.plan.percentage)
            for live in self._lives
            for layer in _normalizations(live.plan)
        ]

    def call(self, inputs):
        size = ops.shape(keras.tree.flatten(inputs)[0])[0]
        found = [statistics for live in self._lives for statistics in _run(live, inputs)]
        return ops.reshape(ops.cast(size, "int32"), (1,)), found


def _normalizations(plan):
    """Returns the layers to measure among those that run, each once."""
    operations = {id(step.call.operation): step.call.operation for step in plan.steps}
    return [x for x in operations.values() if isinstance(x, IDPBatchNormalization)]


def _run(live, inputs):
    """Runs a plan and returns the batch's statistics of each of `_normalizations`."""
    plan = live.plan
    values = executor.bind_inputs(plan.graph, inputs)
    found: dict[int, list] = {id(layer): [] for layer in _normalizations(plan)}
    for step in plan.steps:
        layer = step.call.operation
        measured = id(layer) in found
        # Dropout and similar layers run as in inference.
        values = live.run(values, [step], lambda loss: None, training=measured)
        if measured:  # the sums are copies: the next run writes to the variables
            found[id(layer)].append([v + 0.0 for v in layer.statistics(plan.percentage)])
    # A layer called twice has the mean of its calls, as in training.
    return [
        [ops.mean(ops.stack(of_calls), axis=0)[None] for of_calls in zip(*calls, strict=True)]
        for calls in found.values()
    ]
