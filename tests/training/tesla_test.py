"""TESLA: several percentages trained as tasks of one model."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_tesla as kt
from keras_tesla.layers import IDPBatchNormalization, IDPConv2D, IDPDense
from tests.helpers import LOSS, examples, to_numpy


def mlp(profile="all_one", percentages=(100, 50, 20), **kwargs):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(10, activation="relu", name="first"),
            IDPDense(10, activation="relu", profile=profile, name="middle"),
            IDPDense(3, name="last"),
        ]
    )
    return kt.TESLA(model, percentages, **kwargs)


def cnn(percentages=(100, 40)):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    y = IDPConv2D(8, 3, padding="same")(x)
    y = layers.ReLU()(IDPBatchNormalization(percentages)(y))
    y = layers.Add()([x, y])
    y = layers.GlobalAveragePooling2D()(y)
    return kt.TESLA(keras.Model(inputs, IDPDense(3)(y)), percentages)


def sgd_gradient(tesla, x, y, fit_kwargs=None):
    """The gradient of one step: SGD with a learning rate of 1 subtracts exactly that."""
    before = {v.path: to_numpy(v).copy() for v in tesla.trainable_variables}
    tesla.fit(x, y, batch_size=len(x), epochs=1, shuffle=False, verbose=0, **(fit_kwargs or {}))
    return {v.path: before[v.path] - to_numpy(v) for v in tesla.trainable_variables}


def hand_gradient(weights, x, y, percentages, share, gamma):
    """Gradient of sum_p share_p * cross entropy, written out for the MLP above in NumPy."""
    w1, b1, w2, b2, w3, b3 = (w.astype("float64") for w in weights)
    gradient = [np.zeros_like(w) for w in (w1, b1, w2, b2, w3, b3)]
    one_hot = np.eye(3)[y]
    for p in percentages:
        k = max(1, 10 * p // 100)
        g = np.where(np.arange(10) < k, gamma, 0.0)
        mask = (np.arange(10) < k).astype(float)  # the last layer is all-one
        a1 = x @ w1 + b1
        h1 = np.maximum(a1, 0)
        a2 = (h1 * g) @ w2 + b2
        h2 = np.maximum(a2, 0)
        z = (h2 * mask) @ w3 + b3
        e = np.exp(z - z.max(-1, keepdims=True))
        dz = share[p] * (e / e.sum(-1, keepdims=True) - one_hot) / len(x)
        gradient[4] += (h2 * mask).T @ dz
        gradient[5] += dz.sum(0)
        da2 = (dz @ w3.T) * mask * (a2 > 0)
        gradient[2] += (h1 * g).T @ da2
        gradient[3] += da2.sum(0)
        da1 = (da2 @ w2.T) * g * (a1 > 0)
        gradient[0] += x.T @ da1
        gradient[1] += da1.sum(0)
    return gradient


@pytest.mark.parametrize("jit_compile", [False, "auto"])
@pytest.mark.parametrize(
    ("aggregation", "share"),
    [
        ("sum", {100: 1, 50: 1, 20: 1}),
        # L_2 = (l_100 + l_50) / 2 and L_3 = (L_2 + l_20) / 2
        ("exponential", {100: 0.25, 50: 0.25, 20: 0.5}),
        ({100: 0.7, 50: 0.2, 20: 0.1}, {100: 0.7, 50: 0.2, 20: 0.1}),
    ],
)
def test_a_step_follows_the_hand_computed_gradient_of_the_aggregated_loss(
    aggregation, share, jit_compile
):
    tesla = mlp("linear", aggregation=aggregation)
    tesla.compile(keras.optimizers.SGD(1.0), LOSS, jit_compile=jit_compile)
    x, y = examples(16)
    gamma = 1 - np.arange(10) / 10
    expected = hand_gradient(tesla.get_weights(), x, y, (100, 50, 20), share, gamma)
    got = sgd_gradient(tesla, x, y)
    for value, reference in zip(got.values(), expected, strict=True):
        # float32 against float64: a few rounding errors of sums of 16 terms near 1.
        np.testing.assert_allclose(value, reference, atol=2e-6)


def test_a_callable_aggregation_is_followed():
    tesla = mlp(aggregation=lambda losses: 2 * losses[50])
    tesla.compile(keras.optimizers.SGD(1.0), LOSS)
    x, y = examples(16)
    share = {50: 2}
    expected = hand_gradient(tesla.get_weights(), x, y, [50], share, np.ones(10))
    for value, reference in zip(sgd_gradient(tesla, x, y).values(), expected, strict=True):
        np.testing.assert_allclose(value, reference, atol=2e-6)


def test_only_active_percentages_train():
    tesla = mlp()
    tesla.compile(keras.optimizers.SGD(1.0), LOSS, metrics=["accuracy"])
    tesla.activate([20])
    x, y = examples(16)
    history = tesla.fit(x, y, verbose=0, batch_size=16)
    assert sorted(history.history) == ["loss", "p20_accuracy", "p20_loss"]
    middle = tesla.network.get_layer("middle")
    before = to_numpy(middle.kernel).copy()
    tesla.fit(x, y, verbose=0, batch_size=16)
    changed = np.any(before != to_numpy(middle.kernel), axis=1)
    assert not changed[2:].any()  # 20 % of 10 terms are 2


def test_activating_another_set_takes_effect_at_the_next_fit():
    tesla = mlp()
    tesla.compile("sgd", LOSS)
    x, y = examples(16)
    tesla.activate([100])
    assert "p50_loss" not in tesla.fit(x, y, verbose=0).history
    tesla.activate([100, 50])
    assert tesla.active_percentages == (100, 50)
    history = tesla.fit(x, y, verbose=0, validation_data=(x, y)).history
    assert {"p50_loss", "val_p50_loss"} <= set(history)


def test_a_model_made_in_between_is_not_in_the_way_of_a_new_batch_size():
    tesla, (x, y) = mlp(), examples(64)
    tesla.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    tesla.train_on_batch(x, y)
    mlp()
    assert np.isfinite(tesla.train_on_batch(x[:5], y[:5])[0])


def test_at_100_percent_alone_a_step_is_that_of_plain_keras():
    """The oracle: the same network of stock layers, compiled and fitted by Keras."""
    tesla = mlp(percentages=[100])
    plain = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(10, activation="relu"),
            layers.Dense(10, activation="relu"),
            layers.Dense(3),
        ]
    )
    plain.set_weights(tesla.get_weights())
    x, y = examples(64)
    weights = np.linspace(0.5, 2, len(x))
    for model in (tesla, plain):
        model.compile(keras.optimizers.Adam(0.01), LOSS, jit_compile=False)
        model.fit(x, y, sample_weight=weights, epochs=3, shuffle=False, verbose=0)
    for ours, theirs in zip(tesla.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_losses_and_metrics_are_those_of_the_plain_models_at_each_percentage():
    tesla = cnn()
    x, y = examples(64, shape=(6, 6, 2))
    tesla.compile(
        keras.optimizers.Adam(0.01),
        LOSS,
        metrics=["accuracy"],
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy("weighted")],
    )
    tesla.fit(x, y, epochs=2, verbose=0)
    weights = np.linspace(0, 1, len(x))
    logs = tesla.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    total = 0.0
    for percentage in (100, 40):
        plain = tesla.at(percentage)
        plain.compile(
            loss=LOSS,
            metrics=["accuracy"],
            weighted_metrics=[keras.metrics.SparseCategoricalAccuracy("weighted")],
        )
        expected = plain.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
        total += expected["loss"]
        for name, value in expected.items():
            assert logs[f"p{percentage}_{name}"] == pytest.approx(value, abs=1e-5)
    assert logs["loss"] == pytest.approx(total, abs=1e-5)


def one_channel():
    """Every percentage reads the one channel before the first incomplete layer."""
    x = keras.Input((6,))
    return keras.Model(x, IDPDense(3)(layers.Dense(1)(x)))


def not_reached():
    """At 50 % and below no layer reads the incomplete part of the concatenation."""
    x = keras.Input((6,))
    a = layers.Dense(4)(x)
    return keras.Model(x, IDPDense(2)(layers.Concatenate()([a, IDPDense(4)(a)])))


@pytest.mark.parametrize("build", [one_channel, not_reached])
def test_all_percentages_compute_what_the_network_does_in_their_scope(build):
    network = build()
    outputs = kt.TESLA(network, [100, 50, 20])(np.ones((2, 6), "float32"))
    for percentage in (100, 50, 20):
        with kt.percentage_scope(percentage):
            expected = to_numpy(network(np.ones((2, 6), "float32")))
        # float32 sums of a few terms in another order.
        np.testing.assert_allclose(to_numpy(outputs[f"p{percentage}"]), expected, rtol=1e-5)


def test_class_weights_weigh_the_loss():
    losses = []
    for y_value in (0, 1):
        tesla = mlp()
        tesla.compile(keras.optimizers.SGD(0.0), LOSS)
        x, _ = examples(16)
        y = np.full(16, y_value)
        plain = tesla.evaluate(x, y, verbose=0, return_dict=True)["p50_loss"]
        history = tesla.fit(x, y, class_weight={0: 1.0, 1: 3.0, 2: 1.0}, verbose=0, batch_size=16)
        losses.append(history.history["p50_loss"][0] / plain)
    np.testing.assert_allclose(losses, [1, 3], rtol=1e-5)


def test_regularization_counts_once_whatever_the_number_of_percentages():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), IDPDense(3, kernel_regularizer=keras.regularizers.L2(0.1))]
    )
    tesla = kt.TESLA(model, [100, 50, 20])
    tesla.compile("sgd", LOSS)
    logs = tesla.evaluate(*examples(16), verbose=0, return_dict=True)
    penalty = 0.1 * np.sum(to_numpy(model.layers[0].kernel) ** 2)
    parts = logs["p100_loss"] + logs["p50_loss"] + logs["p20_loss"]
    assert logs["loss"] == pytest.approx(parts + penalty, abs=1e-5)


def test_batch_statistics_are_learned_for_each_percentage():
    tesla = cnn()
    tesla.compile("sgd", LOSS)
    x, y = examples(64, shape=(6, 6, 2))
    tesla.fit(x, y, verbose=0)
    normalization = next(
        layer for layer in tesla.network.layers if isinstance(layer, IDPBatchNormalization)
    )
    wide, narrow = (to_numpy(normalization.statistics(p)[0]) for p in (100, 40))
    assert np.any(wide != 0)
    assert np.any(narrow != 0)
    assert np.all(wide[:3] != narrow[:3])


def test_dropout_drops_in_training_only():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), IDPDense(64, "relu"), layers.Dropout(0.9), IDPDense(3)]
    )
    tesla = kt.TESLA(model, [100, 50])
    tesla.compile(keras.optimizers.SGD(0.0), "mse")
    x, y = examples(64)[0], np.zeros((64, 3))
    trained = tesla.fit(x, y, batch_size=64, verbose=0).history["p50_loss"][0]
    first, second = (tesla.evaluate(x, y, verbose=0, return_dict=True)["p50_loss"] for _ in "12")
    assert first == second
    assert trained > 2 * first  # what is kept is multiplied by 10


@pytest.mark.slow
def test_several_inputs_and_outputs_by_name():
    keras.utils.set_random_seed(0)
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    x = layers.Dense(8, activation="relu")(layers.Concatenate()([a, b]))
    x = IDPDense(8, activation="relu")(x)
    model = keras.Model(
        {"a": a, "b": b}, {"u": IDPDense(2, name="u")(x), "v": IDPDense(1, name="v")(x)}
    )
    tesla = kt.TESLA(model, [100, 50])
    tesla.compile(
        "adam",
        {"u": LOSS, "v": "mse"},
        loss_weights={"u": 1.0, "v": 0.5},
        metrics={"u": ["accuracy"], "v": ["mae"]},
    )
    random = np.random.default_rng(0)
    x = {"a": random.standard_normal((32, 4)), "b": random.standard_normal((32, 3))}
    y = {"u": random.integers(0, 2, 32), "v": random.standard_normal((32, 1))}
    history = tesla.fit(x, y, epochs=2, verbose=0, validation_data=(x, y)).history
    assert {"p50_u_accuracy", "p50_v_mae", "p50_u_loss", "p50_v_loss", "val_p100_loss"} <= set(
        history
    )
    predicted = tesla.predict(x, percentage=50, verbose=0)
    expected = tesla.at(50).predict(x, verbose=0)
    for name in ("u", "v"):
        np.testing.assert_allclose(predicted[name], expected[name], atol=1e-6)


def test_masks_reach_the_loss():
    """Padded steps of a sequence count neither in TESLA nor in plain Keras."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5, 4)),
            layers.Masking(),
            layers.Dense(8, activation="relu"),
            IDPDense(8, activation="relu"),
            IDPDense(2),
        ]
    )
    tesla = kt.TESLA(model, [100, 50])
    x, y = examples(16, (5, 4), 2)[0], np.random.default_rng(0).standard_normal((16, 5, 2))
    x[:, 3:] = 0
    tesla.compile("sgd", "mse")
    logs = tesla.evaluate(x, y, verbose=0, return_dict=True)
    for percentage in (100, 50):
        plain = tesla.at(percentage)
        plain.compile(loss="mse")
        expected = plain.evaluate(x, y, verbose=0)
        assert logs[f"p{percentage}_loss"] == pytest.approx(expected, abs=1e-5)
        shorter = np.mean((plain.predict(x, verbose=0)[:, :3] - y[:, :3]) ** 2)
        full = np.mean((plain.predict(x, verbose=0) - y) ** 2)
        assert abs(shorter - full) > 1e-4  # so the mask matters here


@pytest.mark.parametrize("build", [mlp, cnn])
@pytest.mark.slow
def test_saving_and_loading_continues_exactly(build, tmp_path):
    tesla = build()
    shape = tesla.network.input_shape[1:]
    x, y = examples(64, shape=shape)
    tesla.compile("adam", LOSS, metrics=["accuracy"])
    tesla.fit(x, y, epochs=2, shuffle=False, verbose=0)
    tesla.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.percentages == tesla.percentages
    for model in (tesla, loaded):
        model.fit(x, y, epochs=2, shuffle=False, verbose=0)
    for ours, theirs in zip(tesla.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert tesla.evaluate(x, y, verbose=0) == loaded.evaluate(x, y, verbose=0)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.slow
def test_mixed_precision_trains(policy):
    keras.config.set_dtype_policy(policy)
    try:
        tesla = mlp()
    finally:
        keras.config.set_dtype_policy("float32")
    x, y = examples(256)
    tesla.compile(keras.optimizers.Adam(0.02), LOSS, metrics=["accuracy"])
    scaled = isinstance(tesla.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (policy == "mixed_float16")
    history = tesla.fit(x, y, epochs=15, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert {v.dtype for v in tesla.trainable_variables} == {"float32"}


def test_frozen_layers_stay():
    tesla = mlp()
    tesla.network.get_layer("middle").trainable = False
    tesla.compile("sgd", LOSS)
    before = to_numpy(tesla.network.get_layer("middle").kernel).copy()
    tesla.fit(*examples(64), verbose=0)
    np.testing.assert_array_equal(before, to_numpy(tesla.network.get_layer("middle").kernel))


def test_trainable_coefficients_are_trained_stay_non_increasing_and_are_saved(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, "relu"), IDPDense(3, trainable_profile=True)]
    )
    tesla = kt.TESLA(model, [100, 50])
    tesla.compile(keras.optimizers.Adam(0.05), LOSS)
    tesla.fit(*examples(64), epochs=5, verbose=0)
    gamma = to_numpy(model.layers[-1].coefficients)
    assert np.any(gamma != 1)
    assert np.all(np.diff(gamma) <= 0)
    tesla.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(to_numpy(loaded.network.layers[-1].coefficients), gamma)


def test_evaluate_also_at_percentages_that_were_not_trained():
    tesla = mlp()
    tesla.compile("sgd", LOSS, metrics=["accuracy"])
    x, y = examples(64)
    logs = tesla.evaluate(x, y, percentages=[35, 100], verbose=0, return_dict=True)
    assert sorted(logs) == ["loss", "p100_accuracy", "p100_loss", "p35_accuracy", "p35_loss"]
    plain = tesla.at(35)
    plain.compile(loss=LOSS)
    assert logs["p35_loss"] == pytest.approx(plain.evaluate(x, y, verbose=0), abs=1e-5)
    assert tesla.active_percentages == (100, 50, 20)
    assert "p20_loss" in tesla.evaluate(x, y, verbose=0, return_dict=True)


def test_predict_takes_a_percentage_and_gives_the_widest_without():
    tesla = mlp()
    x, _ = examples(64)
    for percentage in (20, 100, 20):
        np.testing.assert_allclose(
            tesla.predict(x, percentage=percentage, verbose=0),
            tesla.at(percentage).predict(x, verbose=0),
            atol=1e-6,
        )
    np.testing.assert_array_equal(
        tesla.predict(x, verbose=0), tesla.predict(x, percentage=100, verbose=0)
    )


def test_xla_is_chosen_for_an_mlp_and_not_for_a_cnn_on_tensorflow():
    mlp_model, cnn_model = mlp(), cnn()
    for model in (mlp_model, cnn_model):
        model.compile("sgd", LOSS)
    if keras.backend.backend() == "tensorflow":
        assert mlp_model.jit_compile is True
        assert cnn_model.jit_compile is False
    eager = mlp()
    eager.compile("sgd", LOSS, run_eagerly=True)
    assert eager.jit_compile is False
    eager.fit(*examples(64), verbose=0)


# What is refused.


@pytest.mark.parametrize(
    ("percentages", "message"),
    [
        ([], "at least one"),
        ([0], "1 to 100"),
        ([101], "1 to 100"),
        ([55.5], "integer"),
        ([True], "integer"),
        (["50"], "integer"),
        ("50", "iterable"),
        (50, "iterable"),
        ([50, 50], "distinct"),
    ],
)
def test_percentages_that_are_none_are_refused(percentages, message):
    with pytest.raises(ValueError, match=message):
        mlp(percentages=percentages)


def test_a_model_without_an_idp_layer_is_refused():
    plain = keras.Sequential([keras.Input((6,)), layers.Dense(3, name="only")])
    with pytest.raises(ValueError, match=r"no incomplete layer.*only"):
        kt.TESLA(plain)


def test_a_subclassed_model_is_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="Functional or Sequential"):
        kt.TESLA(Own())


def test_an_unbuilt_model_is_refused():
    with pytest.raises(ValueError, match="not built"):
        kt.TESLA(keras.Sequential([IDPDense(3)]))


def test_an_idp_layer_hidden_in_a_wrapper_is_refused():
    model = keras.Sequential(
        [keras.Input((5, 6)), layers.TimeDistributed(IDPDense(3, name="inner")), IDPDense(2)]
    )
    with pytest.raises(ValueError, match=r"contains the IDP layer 'inner'"):
        kt.TESLA(model)


def test_leaving_out_pixels_behind_a_flatten_is_refused():
    def model(**kwargs):
        return keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                layers.Conv2D(4, 3),
                layers.Flatten(),
                IDPDense(3, name="head", **kwargs),
            ]
        )

    with pytest.raises(ValueError, match="`input_channels=4`"):
        kt.TESLA(model())
    kt.TESLA(model(input_channels=4))


def test_percentages_without_statistics_are_refused():
    model = keras.Sequential(
        [keras.Input((6,)), IDPDense(4), IDPBatchNormalization([100, 50], name="norm"), IDPDense(2)]
    )
    with pytest.raises(ValueError, match=r"'norm' has statistics for \[100, 50\].*30"):
        kt.TESLA(model, [100, 30])
    tesla = kt.TESLA(model, [100, 50])
    for use in (
        lambda: tesla.at(30),
        lambda: tesla.predict(np.zeros((2, 6)), percentage=30, verbose=0),
    ):
        with pytest.raises(ValueError, match="'norm' has statistics"):
            use()


def test_activating_an_untrained_percentage_is_refused():
    with pytest.raises(ValueError, match=r"Only \[100, 50, 20\] percent"):
        mlp().activate([30])


@pytest.mark.parametrize("percentage", [0, 101, 55.5, True, "50", None])
def test_at_takes_percentages_only(percentage):
    with pytest.raises(ValueError, match="percentage must be"):
        mlp().at(percentage)


def test_an_aggregation_without_a_weight_for_a_task_is_refused_at_construction():
    with pytest.raises(ValueError, match=r"No weight is given for \[20\]"):
        mlp(aggregation={100: 0.5, 50: 0.5})


def test_without_percentages_those_of_the_layers_are_trained(tmp_path):
    x = keras.Input((6,))
    plain = keras.Model(x, layers.Dense(3)(layers.Dense(8)(x)))
    converted = kt.to_idp(plain, percentages=[100, 60, 30])
    converted.save(tmp_path / "converted.keras")
    for model in (converted, keras.saving.load_model(tmp_path / "converted.keras")):
        assert kt.TESLA(model).percentages == (100, 60, 30)
    x = keras.Input((6,))
    y = kt.layers.IDPBatchNormalization([100, 60])(layers.Dense(8)(x))
    private = IDPDense(3, percentages=[100, 60, 30], private_bias=True)
    assert kt.TESLA(keras.Model(x, private(y))).percentages == (100, 60)
    assert kt.TESLA(keras.Model(x, IDPDense(3)(y))).percentages == (100, 60)
    assert kt.TESLA(keras.Model(x, IDPDense(3)(layers.Dense(8)(x)))).percentages == tuple(
        range(100, 0, -10)
    )
    apart = IDPDense(3, percentages=[30], private_bias=True)
    with pytest.raises(ValueError, match="have no percentage in common"):
        kt.TESLA(keras.Model(x, apart(y)))


def test_summary_shows_the_channels_of_each_layer_at_each_percentage():
    printed = []
    mlp(percentages=[100, 50]).summary(print_fn=lambda text, **kwargs: printed.append(text))
    assert 'Model: "' in printed[0]
    rows = [line.split() for line in printed[-1].splitlines()]
    assert rows[0] == ["Channels", "100", "%", "50", "%"]
    # All layers of the network have 10 units but the last, which has 3.
    assert [row[1:] for row in rows[2:]] == [["10", "5"], ["10", "5>5"], ["3", "5>3"]]
