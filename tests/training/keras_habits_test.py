"""What users are used to from `keras.Model` holds for `TESLA`; the oracle is plain Keras.

At 100 % alone a TESLA model trains as the network does, so its `p100_` columns are Keras' own.
"""

from contextlib import nullcontext

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.layers import IDPDense

X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
Y = np.arange(40) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu"),
            IDPDense(8, activation="relu"),
            IDPDense(3),
        ]
    )


def two_heads(structure):
    """A network with the outputs "a" and "b" in a dict or a list."""
    keras.utils.set_random_seed(0)
    x = keras.Input((6,))
    y = IDPDense(8, activation="relu")(layers.Dense(8, activation="relu")(x))
    outputs = {"a": IDPDense(3, name="a")(y), "b": IDPDense(1, name="b")(y)}
    return keras.Model(x, outputs if structure == "dict" else list(outputs.values()))


class WithoutConfig(keras.metrics.Metric):
    """A metric as people write them: an argument that no config knows of."""

    def __init__(self, factor):
        super().__init__(name="scaled")
        self.factor = factor
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(self.factor * keras.ops.mean(keras.ops.abs(y_pred)))

    def result(self):
        return self.total + 0.0  # a variable is no result on JAX


class PartOfAConfig(WithoutConfig):
    """Its config lacks the argument, and the default is another value."""

    def __init__(self, factor=1.0, name="scaled", dtype=None):
        super().__init__(factor)


class Wrapper(keras.metrics.Metric):
    """A metric around another one."""

    def __init__(self, inner):
        super().__init__(name="wrapped")
        self.inner = inner

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.inner.update_state(y_true, y_pred)

    def result(self):
        return self.inner.result()

    def reset_state(self):
        self.inner.reset_state()


METRICS = {
    "without config": lambda: WithoutConfig(3.0),
    "part of a config": lambda: PartOfAConfig(3.0),
    "wrapper": lambda: Wrapper(WithoutConfig(3.0)),
    "function": lambda: keras.metrics.MeanMetricWrapper(
        lambda y, p: keras.ops.abs(p[:, 0]), name="fn"
    ),
}


@pytest.mark.parametrize("kind", METRICS)
def test_a_users_metric_counts_at_every_percentage_as_in_keras(kind):
    tesla = kt.TESLA(network(), [100, 50])
    tesla.compile("sgd", LOSS, metrics=[METRICS[kind]()])
    logs = tesla.evaluate(X, Y, batch_size=16, verbose=0, return_dict=True)
    for percentage in (100, 50):
        plain, metric = tesla.at(percentage), METRICS[kind]()
        plain.compile("sgd", LOSS, metrics=[metric])
        expected = plain.evaluate(X, Y, batch_size=16, verbose=0, return_dict=True)[metric.name]
        assert logs[f"p{percentage}_{metric.name}"] == pytest.approx(expected, rel=1e-5)


def test_a_metric_object_holds_the_result_of_the_highest_percentage():
    metric = keras.metrics.SparseCategoricalAccuracy("accuracy")
    tesla = kt.TESLA(network(), [100, 50])
    tesla.compile("sgd", LOSS, metrics=[metric])
    logs = tesla.evaluate(X, Y, verbose=0, return_dict=True)
    assert float(metric.result()) == pytest.approx(logs["p100_accuracy"], rel=1e-6)
    assert logs["p100_accuracy"] > 0


LOSSES = {
    "dict": {"a": LOSS, "b": "mse"},
    "list": [LOSS, "mse"],
    "list, named": {"a": LOSS, "b": "mse"},
}


@pytest.mark.parametrize("given", LOSSES)
@pytest.mark.slow
def test_columns_of_several_outputs_are_those_of_keras(given):
    """Each in front a percentage's name, and none that is always zero."""
    targets = {"a": Y, "b": X[:, :1]} if given == "dict" else [Y, X[:, :1]]
    metrics = {"a": ["accuracy"]}

    def logs_of(model):
        model.compile(keras.optimizers.SGD(0.1), LOSSES[given], metrics=metrics)
        history = model.fit(
            X, targets, validation_data=(X, targets), epochs=2, verbose=0, shuffle=False
        )
        return {name: values[-1] for name, values in history.history.items()}

    structure = given.split(",")[0]
    tesla = logs_of(kt.TESLA(two_heads(structure), [100]))
    plain = logs_of(two_heads(structure))
    expected = {}
    for name, value in plain.items():
        prefix = "val_" if name.startswith("val_") else ""
        expected[f"{prefix}p100_{name.removeprefix('val_')}"] = value
        if name.endswith("loss") and name.removeprefix("val_") == "loss":
            expected[name] = value
    assert tesla == pytest.approx(expected, rel=1e-5)


# What a model's own class does.


def own_class(method, base=keras.Model):
    """A class of a user with a method of its own, which does what Keras' does."""

    def own(self, *args, **kwargs):
        return getattr(base, method)(self, *args, **kwargs)

    return type("Physics", (base,), {method: own})


COPIES = {
    "TESLA": lambda model: kt.TESLA(model, [100, 50]),
    "to_idp": lambda model: kt.to_idp(model, [100, 50]),
    "order_channels": kt.order_channels,
    "quantization_aware": lambda model: kt.quantization_aware(model, [100, 50]),
}


def mixed():
    """A network that is still to be converted in part."""
    return keras.Sequential([keras.Input((6,)), layers.Dense(8), IDPDense(8), layers.Dense(3)])


STEPS = ["compute_loss", "compute_metrics", "train_step", "test_step", "predict_step"]


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("method", STEPS)
def test_a_class_with_its_own_step_is_refused(copy, method):
    plain = mixed()
    message = rf"of the class Physics, whose own {method} would be dropped.*`compile`.*TESLA"
    for model in (
        own_class(method)(plain.inputs, plain.outputs),
        own_class(method, keras.Sequential)([keras.Input((6,)), *plain.layers]),
    ):
        with pytest.raises(ValueError, match=message):
            COPIES[copy](model)
    COPIES[copy](keras.Model(plain.inputs, plain.outputs))  # the way out


@pytest.mark.parametrize("copy", COPIES)
def test_a_class_with_its_own_call_is_refused(copy):
    plain = mixed()
    model = own_class("call")(plain.inputs, plain.outputs)
    with pytest.raises(ValueError, match="must be a Functional or Sequential one"):
        COPIES[copy](model)


def test_a_class_that_only_adds_methods_is_taken():
    class Named(keras.Model):
        def describe(self):
            return "mine"

    plain = mixed()
    kt.TESLA(Named(plain.inputs, plain.outputs), [100, 50])


# Predictions.


def test_the_second_argument_of_predict_is_the_batch_size():
    tesla = kt.TESLA(network(), [100, 50])

    class Batches(keras.callbacks.Callback):
        count = 0

        def on_predict_batch_end(self, batch, logs=None):
            self.count += 1

    batches = Batches()
    outputs = tesla.predict(X, 10, 0, callbacks=[batches])
    assert batches.count == 4
    np.testing.assert_allclose(outputs, tesla.network.predict(X, 10, 0), rtol=1e-5)
    np.testing.assert_allclose(
        tesla.predict(X, 10, 0, percentage=50), tesla.at(50).predict(X, verbose=0), rtol=1e-5
    )


def test_predictions_on_a_batch_are_those_of_predict():
    tesla = kt.TESLA(network(), [100, 50])
    for percentage in (100, 50):
        on_batch = tesla.predict_on_batch(X, percentage=percentage)
        expected = tesla.at(percentage).predict_on_batch(X)
        np.testing.assert_allclose(on_batch, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(tesla.predict_on_batch(X), tesla.predict_on_batch(X, 100))


# Logs.


def test_a_list_of_results_has_each_column_once():
    tesla = kt.TESLA(network(), [100, 50])
    tesla.compile("sgd", LOSS, metrics=["accuracy"])
    results = tesla.evaluate(X, Y, verbose=0)
    assert tesla.metrics_names == ["loss", "p100_loss", "p100_accuracy", "p50_loss", "p50_accuracy"]
    logs = tesla.evaluate(X, Y, verbose=0, return_dict=True)
    assert list(logs) == tesla.metrics_names
    assert results == pytest.approx(list(logs.values()), rel=1e-6)
    at_50 = tesla.evaluate(X, Y, verbose=0, percentages=[50])
    assert at_50 == pytest.approx([results[3], results[3], results[4]], rel=1e-6)
    for take in (tesla.test_on_batch, tesla.train_on_batch):
        tesla.reset_metrics()
        assert take(X, Y) == pytest.approx(results, rel=1e-5)
    assert list(tesla.test_on_batch(X, Y, return_dict=True)) == tesla.metrics_names


CALLBACKS = {
    "EarlyStopping": lambda monitor: keras.callbacks.EarlyStopping(monitor),
    "ReduceLROnPlateau": lambda monitor: keras.callbacks.ReduceLROnPlateau(monitor),
}


@pytest.mark.parametrize("callback", CALLBACKS)
@pytest.mark.parametrize(
    ("column", "better"),
    [("accuracy", 1), ("loss", -1), ("distillation", -1)],
)
@pytest.mark.slow
def test_callbacks_know_which_way_a_column_gets_better(callback, column, better):
    tesla = kt.TESLA(network(), [100, 50], distillation="in_place")
    tesla.compile("sgd", LOSS, metrics=["accuracy"])
    made = CALLBACKS[callback](f"val_p50_{column}")
    tesla.fit(X, Y, validation_data=(X, Y), verbose=0, callbacks=[made])
    assert bool(made.monitor_op(better * 2.0, better * 1.0))
    assert not bool(made.monitor_op(better * 1.0, better * 2.0))


def test_a_column_that_does_not_say_so_needs_a_mode():
    def fit(**mode):
        tesla = kt.TESLA(network(), [100, 50])
        tesla.compile("sgd", LOSS, metrics=[WithoutConfig(1.0)])
        tesla.fit(X, Y, verbose=0, callbacks=keras.callbacks.EarlyStopping("p50_scaled", **mode))

    with pytest.raises(ValueError, match="Pass `mode='max'`"):
        fit()
    fit(mode="max")


def test_the_best_epoch_of_a_percentage_is_kept(tmp_path):
    tesla = kt.TESLA(network(), [100, 50])
    tesla.compile(keras.optimizers.SGD(5.0), LOSS)
    path = str(tmp_path / "best.weights.h5")
    keep = keras.callbacks.ModelCheckpoint(
        path, "val_p50_loss", save_best_only=True, save_weights_only=True
    )
    history = tesla.fit(X, Y, validation_data=(X, Y), epochs=4, verbose=0, callbacks=[keep])
    tesla.load_weights(path)
    best = tesla.evaluate(X, Y, verbose=0, return_dict=True)["p50_loss"]
    assert best == pytest.approx(min(history.history["val_p50_loss"]), rel=1e-5)


def test_the_state_tree_has_a_place_for_each_metric_and_comes_back():
    tesla = kt.TESLA(network(), [100, 50], distillation="in_place")
    tesla.compile("adam", LOSS, metrics=["accuracy", WithoutConfig(1.0)])
    tesla.fit(X, Y, verbose=0)
    tree = tesla.get_state_tree(value_format="numpy_array")
    metrics = tree["metrics_variables"]
    assert set(metrics) == {"loss", "p100", "p50", "p50_distillation", "scaled"}
    assert set(metrics["p50"]) == {"accuracy", "loss", "scaled"}
    assert set(metrics["p100"]) == {"accuracy", "loss"}  # "scaled" is the user's own object
    tree = keras.tree.map_structure(np.copy, tree)
    tesla.fit(X, Y, verbose=0)
    tesla.set_state_tree(tree)
    again = tesla.get_state_tree(value_format="numpy_array")
    for a, b in zip(keras.tree.flatten(tree), keras.tree.flatten(again), strict=True):
        np.testing.assert_array_equal(a, b)


# What a network is.


def test_a_tesla_model_has_the_places_of_its_network(tmp_path):
    tesla = kt.TESLA(network(), [100, 50])
    plain = tesla.network
    assert tesla.input_shape == plain.input_shape == (None, 6)
    assert tesla.output_shape == plain.output_shape == (None, 3)
    assert tesla.inputs == plain.inputs
    assert tesla.outputs == plain.outputs
    assert tesla.get_layer(index=1) is plain.layers[1]
    assert tesla.get_layer(plain.layers[0].name) is plain.layers[0]
    features = keras.Model(tesla.inputs[0], tesla.get_layer(index=1).output)
    assert features(X).shape == (40, 8)


def test_what_keras_does_for_one_network_names_the_way_out(tmp_path):
    tesla = kt.TESLA(network(), [100, 50])
    with pytest.raises(ValueError, match=r"`keras_tesla.tflite.export\(tesla, ..\)`"):
        tesla.export(str(tmp_path / "model"))
    with pytest.raises(ValueError, match="quantization_aware"):
        tesla.quantize("int8")
    for name in ("x.h5", "x.hdf5"):
        with pytest.raises(ValueError, match=r"`.keras` file.*x\.h"):
            tesla.save(tmp_path / name)
    tesla.save(tmp_path / "x.keras")
    loaded = keras.saving.load_model(tmp_path / "x.keras")
    np.testing.assert_allclose(loaded.predict(X, verbose=0), tesla.predict(X, verbose=0))


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_a_quantized_network_is_refused(mode):
    plain = network()
    tesla = kt.TESLA(plain, [100, 50])
    plain.layers[0].quantize(mode)
    message = rf"`keras_tesla.quantization_aware`.*\['{plain.layers[0].name}'\]"
    for use in (
        lambda: kt.TESLA(plain, [100, 50]),
        lambda: tesla.predict(X, percentage=50, verbose=0),
        lambda: tesla.compile("sgd", LOSS),
        lambda: tesla.at(50),
    ):
        with pytest.raises(ValueError, match=message):
            use()


# Steps.


def test_a_loss_of_a_subclass_may_lack_the_argument_training():
    class Own(kt.TESLA):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
            return 2 * super().compute_loss(x, y, y_pred, sample_weight)

    def loss(cls):
        tesla = cls(network(), [100, 50])
        tesla.compile(keras.optimizers.SGD(0.0), LOSS)
        return tesla.fit(X, Y, verbose=0).history["loss"][0]

    assert loss(Own) == pytest.approx(2 * loss(kt.TESLA), rel=1e-5)


@pytest.mark.parametrize("jit_compile", ["auto", False])
@pytest.mark.parametrize("freeze", ["tesla", "network"])
@pytest.mark.slow
def test_a_frozen_model_is_evaluated_in_fit(freeze, jit_compile):
    tesla = kt.TESLA(network(), [100, 50])
    (tesla if freeze == "tesla" else tesla.network).trainable = False
    tesla.compile("sgd", LOSS, jit_compile=jit_compile)
    before = tesla.get_weights()
    warned = pytest.warns(UserWarning, match="does not have any trainable weights")
    with nullcontext() if keras.backend.backend() == "jax" else warned:  # as in Keras
        logs = tesla.fit(X, Y, verbose=0).history
    evaluated = tesla.evaluate(X, Y, verbose=0, return_dict=True)
    assert logs["p50_loss"][0] == pytest.approx(evaluated["p50_loss"], rel=1e-5)
    for a, b in zip(before, tesla.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


class SumOfSquares(layers.Layer):
    def call(self, inputs):
        self.add_loss(keras.ops.mean(keras.ops.square(inputs)))
        return inputs


def test_a_loss_may_come_from_layers_alone():
    def logs_of(wrap):
        keras.utils.set_random_seed(0)
        x = keras.Input((6,))
        y = SumOfSquares()(IDPDense(3)(layers.Dense(8, activation="relu")(x)))
        model = wrap(keras.Model(x, y))
        model.compile(keras.optimizers.SGD(0.1))
        return model.fit(X, epochs=2, verbose=0, shuffle=False).history, model.get_weights()

    expected, weights = logs_of(lambda model: model)
    logs, found = logs_of(lambda model: kt.TESLA(model, [100]))
    assert logs["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert set(logs) == {"loss"}
    for a, b in zip(found, weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="Keras takes a loss of 0 on JAX")
def test_no_loss_at_all_is_refused_as_in_keras():
    tesla = kt.TESLA(network(), [100, 50])
    tesla.compile("sgd")
    with pytest.raises(ValueError, match="No loss to compute"):
        tesla.fit(X, Y, verbose=0)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="of PyTorch alone")
def test_torch_compile_is_refused():
    with pytest.raises(ValueError, match="`jit_compile=True` does not work.*PyTorch"):
        kt.TESLA(network(), [100, 50]).compile("sgd", LOSS, jit_compile=True)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="of PyTorch alone")
def test_a_model_that_was_saved_with_xla_is_loaded():
    tesla = kt.TESLA(network(), [100, 50])
    tesla.compile("sgd", LOSS)
    config = {**tesla.get_compile_config(), "jit_compile": True}
    tesla.compile_from_config(config)
    tesla.fit(X, Y, verbose=0)


@pytest.mark.tensorflow
@pytest.mark.parametrize("place", ["loss", "metrics", "weighted_metrics", "wrapped"])
def test_a_loss_or_a_metric_in_python_counts_as_in_keras(place):
    import tensorflow as tf

    def share(y_true, y_pred):
        def compute(a, b):
            return np.float32(np.mean(a == b.argmax(-1)))

        result = tf.numpy_function(compute, [y_true, y_pred], tf.float32)
        result.set_shape(())
        return result

    wrapped = keras.metrics.MeanMetricWrapper(share, name="share")
    arguments = {
        "loss": {"loss": lambda y, p: share(y, p) + 0 * tf.reduce_sum(p)},
        "metrics": {"loss": LOSS, "metrics": [share]},
        "weighted_metrics": {"loss": LOSS, "weighted_metrics": [share]},
        "wrapped": {"loss": LOSS, "metrics": [wrapped]},
    }[place]

    def logs_of(model):
        model.compile(keras.optimizers.SGD(0.1), **arguments)
        return model.fit(X, Y.astype("int32"), shuffle=False, verbose=0).history

    column = "loss" if place == "loss" else "share"
    expected = logs_of(network())[column]
    assert logs_of(kt.TESLA(network(), [100]))[f"p100_{column}"] == pytest.approx(expected)


WAYS = {
    "compiled": {},
    "one after the other": {"jit_compile": False},
    "together": {"jit_compile": False, "aggregation": lambda losses: sum(losses.values())},
    "eager": {"jit_compile": False, "run_eagerly": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first", ["complete", "incomplete"])
@pytest.mark.slow
def test_the_padding_of_a_sequence_is_not_taught(way, first):
    """By hand: the mean divergence of the steps that are there."""
    arguments = dict(WAYS[way])
    aggregation = arguments.pop("aggregation", "sum")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(12, 8, mask_zero=True)(inputs)
    x = layers.Dense(8, activation="relu")(x) if first == "complete" else IDPDense(8)(x)
    tesla = kt.TESLA(
        keras.Model(inputs, IDPDense(4)(x)),
        [100, 50],
        aggregation=aggregation,
        distillation="in_place",
    )
    tesla.compile(keras.optimizers.SGD(0.0), LOSS, **arguments)
    vectors = np.random.default_rng(1).normal(size=(12, 8))
    vectors[0] *= 3  # what is padded would count more
    tesla.network.layers[1].embeddings.assign(vectors)
    ids = np.random.default_rng(0).integers(1, 12, (8, 6))
    ids[:, 3:] = 0
    ids[0, 1:] = 0
    logits = {p: tesla.predict(ids, percentage=p, verbose=0) for p in (100, 50)}
    q = {p: np.exp(z) / np.exp(z).sum(-1, keepdims=True) for p, z in logits.items()}
    divergences = (q[100] * np.log(q[100] / q[50])).sum(-1)
    expected = divergences[ids > 0].mean()
    assert divergences.mean() != pytest.approx(expected, rel=0.1)
    y = np.ones((8, 6), "int32")
    trained = tesla.fit(ids, y, verbose=0).history["p50_distillation"][0]
    evaluated = tesla.evaluate(ids, y, verbose=0, return_dict=True)["p50_distillation"]
    assert (trained, evaluated) == pytest.approx((expected, expected), rel=1e-3)


# Inputs.


def two_inputs(structure):
    """A network of "a" and "b", which it reads differently."""
    keras.utils.set_random_seed(0)
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    y = layers.Concatenate()([layers.Dense(4)(a), layers.Dense(5)(b)])
    given = {"list": [a, b], "dict": {"a": a, "b": b}, "unsorted dict": {"b": b, "a": a}}
    return keras.Model(given[structure], IDPDense(3)(y))


A, B = X, X[::-1].copy()


@pytest.mark.filterwarnings("ignore:The structure of `inputs`")  # Keras', of the last ones
@pytest.mark.parametrize(
    ("structure", "given"),
    [
        ("list", [A, B]),
        ("list", (A, B)),
        ("list", [B, A]),
        ("list", {"a": A, "b": B}),
        ("list", {"b": B, "a": A, "unused": A}),
        ("dict", {"b": B, "a": A}),
        ("unsorted dict", {"a": A, "b": B}),
        ("dict", [A, B]),
        ("dict", {"a": A, "b": B, "unused": A}),
        ("unsorted dict", {"a": A, "b": B, "unused": A}),
    ],
)
def test_inputs_are_found_as_in_keras(structure, given):
    plain = two_inputs(structure)
    expected = plain.predict(given, verbose=0)
    tesla = kt.TESLA(plain, [100, 50])
    np.testing.assert_allclose(tesla.predict(given, verbose=0), expected, rtol=1e-4, atol=1e-6)


def test_a_key_before_the_others_does_not_shift_them():
    """Keras warns and takes the values in order."""
    plain = two_inputs("dict")
    tesla = kt.TESLA(plain, [100, 50])
    expected = plain.predict({"a": A, "b": B}, verbose=0)
    outputs = tesla.predict({"_": B, "a": A, "b": B}, verbose=0)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
@pytest.mark.parametrize(
    ("structure", "given", "message"),
    [
        ("list", {"a": A}, r"\['b'\] are missing"),
        ("dict", {"a": A, "x": B}, r"\['b'\] are missing"),
        ("list", [A], "takes 2 inputs. Received: 1"),
        ("dict", [A, B, B], "takes 2 inputs. Received: 3"),
        ("unsorted dict", [A, B], r"keys \['b', 'a'\], and a list could mean another order"),
        ("list", [A, B[:, :5]], r"Input 'b' must have the shape \(None, 6\).*\(.*, 5\)"),
        ("list", [A, B[:, None]], r"Input 'b' must have the shape \(None, 6\).*\(.*, 1, 6\)"),
        ("list", [A, None], "Input 'b' is None"),
    ],
)
def test_inputs_that_keras_refuses_are_refused(structure, given, message):
    plain = two_inputs(structure)
    tesla = kt.TESLA(plain, [100, 50])
    with pytest.raises(ValueError, match="(?i)input"):
        plain(given)
    with pytest.raises(ValueError, match=message):
        tesla(given)


@keras.saving.register_keras_serializable("habits")
class SumOfWhatIsThere(layers.Layer):
    def call(self, x, y=None):
        return x if y is None else x + y

    def compute_output_shape(self, shape, *_):
        return shape


def test_an_optional_input_is_to_be_passed():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b", optional=True)
    hidden = layers.Dense(8)(SumOfWhatIsThere()(a, b))
    plain = keras.Model([a, b], kt.layers.IDPDense(3)(hidden))
    tesla = kt.TESLA(plain, [100, 50])
    tesla.compile("sgd", "mse")
    expected = plain.predict([A, B], verbose=0)
    np.testing.assert_allclose(tesla.predict([A, B], verbose=0), expected, rtol=1e-4, atol=1e-6)
    without = keras.ops.convert_to_numpy(plain([A, None]))
    zeros = tesla.predict([A, np.zeros_like(B)], verbose=0)  # they change nothing here
    np.testing.assert_allclose(zeros, without, rtol=1e-4, atol=1e-6)
    for use in (
        lambda given: tesla(given),
        lambda given: tesla.predict(given, verbose=0),
        lambda given: tesla.fit(given, np.zeros((len(A), 3)), verbose=0),
    ):
        with pytest.raises(ValueError, match="Input 'b' is None.*such as zeros"):
            use([A, None])


def test_images_of_another_size_are_refused():
    x = keras.Input((8, 8, 3), name="image")
    y = kt.layers.IDPConv2D(4, 3)(layers.Conv2D(4, 3)(x))
    plain = keras.Model(x, IDPDense(2)(layers.GlobalAveragePooling2D()(y)))
    tesla = kt.TESLA(plain, [100, 50])
    images = np.zeros((2, 9, 9, 3), "float32")
    for use in (plain, tesla, lambda x: tesla.predict(x, verbose=0)):
        with pytest.raises(ValueError, match="image"):
            use(images)


def test_an_activation_of_none_is_refused():
    """Keras calls such a layer, and fails to save and to copy it."""
    plain = network()
    plain.layers[1].activation = None
    with pytest.raises(ValueError, match=r"`activation=None`.*`keras.activations.linear`"):
        kt.TESLA(plain, [100, 50])
    plain.layers[1].activation = keras.activations.linear
    kt.TESLA(plain, [100, 50])


@pytest.mark.parametrize("used", [False, True])
def test_a_layer_that_is_changed_later_is_not_computed_as_before(used):
    plain = network()
    tesla = kt.TESLA(plain, [100, 50])
    tesla.compile("sgd", LOSS)
    if used:
        tesla.fit(X, Y, verbose=0)
        tesla.predict(X, percentage=50, verbose=0)
    plain.layers[1].activation = keras.activations.tanh
    message = r"\['idp_dense.*\] got another argument.*`tesla.compile\(..\)`"
    with pytest.raises(ValueError, match=message):
        tesla(X)
    weights = tesla.get_weights()
    for use in (
        lambda: tesla.predict(X, percentage=50, verbose=0),
        lambda: tesla.fit(X, Y, verbose=0),
        lambda: tesla.evaluate(X, Y, verbose=0),
        lambda: tesla.train_on_batch(X, Y),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    for before, after in zip(weights, tesla.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)  # no step was taken
    tesla.compile("sgd", LOSS)
    np.testing.assert_allclose(
        tesla.predict(X, verbose=0), plain.predict(X, verbose=0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        tesla.predict(X, percentage=50, verbose=0),
        tesla.at(50).predict(X, verbose=0),
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_files_of_weights_of_another_network_are_refused(tmp_path):
    """Keras lays them out by the classes of the layers; a converted network takes the arrays."""
    path = tmp_path / "plain.weights.h5"
    keras.utils.set_random_seed(0)
    plain = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, activation="relu"), layers.Dense(8), layers.Dense(3)]
    )
    plain.save_weights(path)
    tesla = kt.TESLA(kt.to_idp(keras.models.clone_model(plain)), [100, 50])
    for loading in (tesla, tesla.network):
        with pytest.raises(ValueError, match="could not be loaded"):
            loading.load_weights(path)
    tesla.network.set_weights(plain.get_weights())
    np.testing.assert_allclose(
        tesla.predict(X, verbose=0), plain.predict(X, verbose=0), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["sequential", "functional"])
def test_inputs_without_a_name_keep_theirs_in_a_file(kind, tmp_path):
    keras.Input((6,))  # so that Keras has to number the names
    if kind == "sequential":
        plain = network()
    else:
        a, b = keras.Input((6,)), keras.Input((6,))
        y = IDPDense(3)(layers.Dense(4)(layers.Add()([a, b])))
        plain = keras.Model([a, b], y)
    tesla = kt.TESLA(plain, [100, 50])
    tesla.save(tmp_path / "x.keras")
    loaded = keras.saving.load_model(tmp_path / "x.keras")
    assert loaded.graph.input_names == tesla.graph.input_names
    assert loaded.at(50).inputs[0].name == tesla.at(50).inputs[0].name


def test_callbacks_in_a_callback_list_know_the_direction_too():
    tesla = kt.TESLA(network(), [100, 50])
    tesla.compile("sgd", LOSS, metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping("p50_accuracy")
    settings = {"model": tesla, "epochs": 1, "verbose": 0, "steps": 2, "add_history": True}
    callbacks = keras.callbacks.CallbackList([stop], **settings)
    tesla.fit(X, Y, callbacks=callbacks, verbose=0)
    assert stop.monitor_op.__name__ == "greater"


def test_a_layer_that_was_frozen_in_an_interrupted_fit_trains_again():
    tesla = kt.TESLA(network(), [100, 50])
    tesla.compile("sgd", LOSS)

    def freeze_and_stop(epoch, logs):
        tesla.network.layers[0].trainable = False
        raise KeyboardInterrupt

    stop = keras.callbacks.LambdaCallback(on_epoch_end=freeze_and_stop)
    with pytest.raises(KeyboardInterrupt):
        tesla.fit(X, Y, callbacks=[stop], verbose=0)
    assert tesla.network.layers[0].trainable
    assert len(tesla.trainable_variables) == 6


@pytest.mark.tensorflow
def test_an_aggregation_in_python_works_as_a_loss_does():
    import tensorflow as tf

    def largest(losses):
        found = tf.numpy_function(lambda *x: max(x), list(losses.values()), tf.float32)
        return tf.ensure_shape(found, ())

    tesla = kt.TESLA(network(), [100, 50], aggregation=largest)
    tesla.compile("sgd", LOSS)
    logs = tesla.evaluate(X, Y, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(max(logs["p100_loss"], logs["p50_loss"]), rel=1e-5)
