"""In-place distillation: the divergence of each output, its gradient, the logs, what is refused."""

import csv
import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tesla as kt
from keras_tesla.layers import IDPDense
from keras_tesla.training import distillation
from keras_tesla.training.distillation import InPlaceDistillation
from keras_tesla.training.outputs import Output
from tests.helpers import nightly_after

losses = keras.losses
LOGITS = losses.SparseCategoricalCrossentropy(from_logits=True)
BINARY_LOGITS = losses.BinaryCrossentropy(from_logits=True)
# Float32 sums of a few numbers around 1.
CLOSE = {"rel": 1e-4, "abs": 1e-6}


# By hand.


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def categorical_kl(teacher, student, temperature=1.0):
    """Of each example, from logits."""
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1)


def binary_kl(teacher, student, temperature=1.0):
    """Of each example, from logits."""
    p, q = sigmoid(teacher / temperature), sigmoid(student / temperature)
    values = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    return temperature**2 * values.mean(-1)


def numbers(seed, shape=(5, 4)):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


TEACHER, STUDENT = numbers(0), numbers(1)


def divergence(loss, activation="linear", units=4, loss_weights=None, **settings):
    """The divergence of a network with one output."""
    outputs = [Output("y", (), units, activation)]
    return InPlaceDistillation(**settings).compiled(outputs, loss, loss_weights)


def gradient(function, x):
    """The gradient of a scalar function on whatever backend this is."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        x = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x).numpy()
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(function)(jax.numpy.asarray(x)))
    import torch

    x = torch.tensor(x, requires_grad=True)
    function(x).backward()
    return x.grad.numpy()


# Each divergence, with its gradient.


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize(
    "loss", [LOGITS, losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)]
)
def test_a_categorical_crossentropy_has_the_divergence_of_softmax(loss, temperature):
    d = divergence(loss, temperature=temperature)
    expected = categorical_kl(TEACHER, STUDENT, temperature).mean()
    assert float(d(TEACHER, STUDENT)) == pytest.approx(expected, **CLOSE)
    by_hand = softmax(STUDENT / temperature) - softmax(TEACHER / temperature)
    by_hand *= temperature / len(STUDENT)
    actual = gradient(lambda s: d(ops.convert_to_tensor(TEACHER), s), STUDENT)
    np.testing.assert_allclose(actual, by_hand, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("units", [1, 4])
def test_a_binary_crossentropy_has_the_divergence_of_each_unit(units, temperature):
    d = divergence(BINARY_LOGITS, units=units, temperature=temperature)
    teacher, student = TEACHER[:, :units], STUDENT[:, :units]
    expected = binary_kl(teacher, student, temperature).mean()
    assert float(d(teacher, student)) == pytest.approx(expected, **CLOSE)
    by_hand = sigmoid(student / temperature) - sigmoid(teacher / temperature)
    by_hand *= temperature / student.size
    actual = gradient(lambda s: d(ops.convert_to_tensor(teacher), s), student)
    np.testing.assert_allclose(actual, by_hand, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("loss", [losses.CategoricalCrossentropy(), losses.KLDivergence(), "ce"])
def test_probabilities_of_a_softmax_have_the_divergence_of_their_logits(loss, temperature):
    d = divergence(loss, "softmax", temperature=temperature)
    expected = categorical_kl(TEACHER, STUDENT, temperature).mean()
    assert float(d(softmax(TEACHER), softmax(STUDENT))) == pytest.approx(expected, **CLOSE)
    assert float(d(softmax(TEACHER), softmax(TEACHER))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize(
    ("loss", "units"), [("binary_crossentropy", 4), ("crossentropy", 1), ("bce", 1)]
)
def test_probabilities_of_a_sigmoid_have_the_divergence_of_their_logits(loss, units, temperature):
    d = divergence(loss, "sigmoid", units, temperature=temperature)
    teacher, student = TEACHER[:, :units], STUDENT[:, :units]
    expected = binary_kl(teacher, student, temperature).mean()
    assert float(d(sigmoid(teacher), sigmoid(student))) == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize(
    ("loss", "values"),
    [
        ("mean_squared_error", lambda t, s: (t - s) ** 2),
        (losses.MeanSquaredError, lambda t, s: (t - s) ** 2),
        (losses.mean_absolute_error, lambda t, s: abs(t - s)),
        (losses.MeanAbsolutePercentageError(), lambda t, s: 100 * abs(t - s) / abs(t)),
        (
            losses.MeanSquaredLogarithmicError(),
            lambda t, s: (np.log1p(np.maximum(t, 1e-7)) - np.log1p(np.maximum(s, 1e-7))) ** 2,
        ),
        (
            losses.Huber(delta=0.5),
            lambda t, s: np.where(
                abs(t - s) <= 0.5, 0.5 * (t - s) ** 2, 0.5 * abs(t - s) - 0.5 * 0.5**2
            ),
        ),
        (losses.LogCosh(), lambda t, s: np.log(np.cosh(t - s))),
    ],
)
def test_a_regression_may_ask_for_its_own_loss_with_the_teacher_as_target(loss, values):
    d = divergence(loss, divergence=loss)
    assert float(d(TEACHER, STUDENT)) == pytest.approx(values(TEACHER, STUDENT).mean(), rel=1e-3)


def test_a_regression_s_gradient_is_the_loss_s():
    d = divergence("mse", divergence="mse")
    actual = gradient(lambda s: d(ops.convert_to_tensor(TEACHER), s), STUDENT)
    np.testing.assert_allclose(actual, 2 * (STUDENT - TEACHER) / STUDENT.size, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "activation"),
    [(LOGITS, "linear"), ("bce", "sigmoid"), (losses.CategoricalCrossentropy(), "softmax")],
)
def test_the_teacher_gets_no_gradient(loss, activation):
    to = {"linear": lambda x: x, "sigmoid": sigmoid, "softmax": softmax}[activation]
    d = divergence(loss, activation)
    actual = gradient(lambda t: d(t, ops.convert_to_tensor(to(STUDENT))) + 0 * ops.sum(t), STUDENT)
    np.testing.assert_array_equal(actual, 0)


def test_very_sure_outputs_are_learned_from():
    """Probabilities below Keras' epsilon of 1e-7 keep their gradient."""
    teacher, student = np.array([[30.0, 0.0]], "float32"), np.array([[0.0, 30.0]], "float32")
    of_softmax = divergence(losses.CategoricalCrossentropy(), "softmax")
    of_logits = divergence(LOGITS)
    found = []
    for d, last in ((of_softmax, ops.softmax), (of_logits, lambda x: x)):
        t = last(ops.convert_to_tensor(teacher))
        found.append(gradient(lambda s, d=d, t=t, last=last: d(t, last(s)), student))
        assert float(d(t, last(ops.convert_to_tensor(student)))) == pytest.approx(30, rel=1e-4)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
    np.testing.assert_allclose(found[1], [[-1.0, 1.0]], rtol=1e-4)


def test_outputs_of_exactly_0_and_1_are_finite():
    sure = np.array([[0.0, 1.0]], "float32")
    for loss, activation in (("bce", "sigmoid"), (losses.CategoricalCrossentropy(), "softmax")):
        d = divergence(loss, activation, 2)
        assert float(d(sure, sure)) == pytest.approx(0, abs=1e-6)
        assert np.isfinite(float(d(sure, sure[:, ::-1].copy())))
        of_student = gradient(
            lambda s, d=d: d(ops.convert_to_tensor(sure), s), sure[:, ::-1].copy()
        )
        assert np.isfinite(of_student).all()


def test_a_class_that_is_ruled_out_adds_nothing():
    teacher, student = TEACHER.copy(), STUDENT.copy()
    teacher[:, -1] = student[:, -1] = -np.inf
    d = divergence(LOGITS)
    expected = categorical_kl(TEACHER[:, :-1], STUDENT[:, :-1]).mean()
    assert float(d(teacher, student)) == pytest.approx(expected, **CLOSE)
    of_student = gradient(lambda s: d(ops.convert_to_tensor(teacher), s), student)
    by_hand = (softmax(student) - softmax(teacher)) / len(student)
    np.testing.assert_allclose(of_student, by_hand, atol=1e-6)


# As the loss: reduction, axis, weights, several outputs.


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("sum_over_batch_size", lambda v, w: (v * w).mean()),
        ("sum", lambda v, w: (v * w).sum()),
        ("mean_with_sample_weight", lambda v, w: (v * w).sum() / w.sum()),
    ],
)
def test_the_reduction_is_that_of_the_loss(reduction, expected):
    weights = np.array([0.0, 2.0, 1.0, 0.0, 3.0], "float32")
    found = [
        (LOGITS.__class__, {"from_logits": True}, "auto", categorical_kl),
        (losses.BinaryCrossentropy, {"from_logits": True}, "auto", binary_kl),
        (losses.MeanSquaredError, {}, "mse", lambda t, s: ((t - s) ** 2).mean(-1)),
    ]
    for loss, arguments, said, values in found:
        d = divergence(loss(reduction=reduction, **arguments), divergence=said)
        value = float(d(TEACHER, STUDENT, weights))
        assert value == pytest.approx(expected(values(TEACHER, STUDENT), weights), **CLOSE)


def test_classes_may_lie_on_another_axis():
    teacher, student = numbers(0, (2, 3, 5)), numbers(1, (2, 3, 5))
    d = divergence(losses.CategoricalCrossentropy(from_logits=True, axis=1), units=5)
    expected = categorical_kl(np.moveaxis(teacher, 1, -1), np.moveaxis(student, 1, -1)).mean()
    assert float(d(teacher, student)) == pytest.approx(expected, **CLOSE)


BOTH = [Output("a", ("a",), 4, "linear"), Output("b", ("b",), 4, "sigmoid")]
TEACHERS = {"a": TEACHER, "b": sigmoid(numbers(2))}
STUDENTS = {"a": STUDENT, "b": sigmoid(numbers(3))}
VALUES = {"a": categorical_kl(TEACHER, STUDENT), "b": binary_kl(numbers(2), numbers(3))}


@pytest.mark.parametrize("loss", [{"a": LOGITS, "b": "bce"}, [LOGITS, "bce"]])
@pytest.mark.parametrize("weights", [None, {"a": 2.0, "b": 0.5}, [2.0, 0.5]])
def test_each_output_has_its_divergence_and_its_loss_weight(loss, weights):
    d = InPlaceDistillation().compiled(BOTH, loss, weights)
    a, b = (2.0, 0.5) if weights else (1.0, 1.0)
    expected = a * VALUES["a"].mean() + b * VALUES["b"].mean()
    assert float(d(TEACHERS, STUDENTS)) == pytest.approx(expected, **CLOSE)


def test_each_output_has_its_sample_weights():
    d = InPlaceDistillation().compiled(BOTH, {"a": LOGITS, "b": "bce"})
    w = {"a": np.arange(5.0, dtype="float32"), "b": np.ones(5, "float32")}
    expected = (VALUES["a"] * w["a"]).mean() + VALUES["b"].mean()
    assert float(d(TEACHERS, STUDENTS, w)) == pytest.approx(expected, **CLOSE)
    same = (VALUES["a"] * w["a"]).mean() + (VALUES["b"] * w["a"]).mean()
    assert float(d(TEACHERS, STUDENTS, w["a"])) == pytest.approx(same, **CLOSE)


@pytest.mark.parametrize("weights", [None, {"b": 3.0}, [3.0]])
def test_an_output_without_a_loss_is_not_taught(weights):
    d = InPlaceDistillation().compiled(BOTH, {"b": "bce"}, weights)
    expected = (3.0 if weights else 1.0) * VALUES["b"].mean()
    sample_weight = {"b": np.ones(5, "float32")}
    assert float(d(TEACHERS, STUDENTS, sample_weight)) == pytest.approx(expected, **CLOSE)


# Said explicitly.


def _absolute(teacher, student):
    return ops.mean(ops.abs(teacher - student), -1)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("mean_absolute_error", abs(TEACHER - STUDENT).mean()),
        (losses.MeanAbsoluteError(), abs(TEACHER - STUDENT).mean()),
        (_absolute, abs(TEACHER - STUDENT).mean()),
        ("kl_divergence", categorical_kl(TEACHER, STUDENT).mean()),
        ("binary_kl_divergence", binary_kl(TEACHER, STUDENT).mean()),
    ],
)
@pytest.mark.parametrize("loss", ["cosine_similarity", "mse", losses.Poisson(), _absolute])
def test_a_divergence_may_be_given_whatever_the_loss(said, expected, loss):
    d = divergence(loss, divergence=said)
    assert float(d(TEACHER, STUDENT)) == pytest.approx(expected, **CLOSE)


def test_a_function_is_reduced_as_the_loss_is():
    loss = losses.MeanSquaredError(reduction="sum")
    d = divergence(loss, divergence=_absolute)
    expected = abs(TEACHER - STUDENT).mean(-1).sum()
    assert float(d(TEACHER, STUDENT)) == pytest.approx(expected, **CLOSE)


def test_of_several_outputs_some_may_be_given():
    loss = {"a": "cosine_similarity", "b": "bce"}
    d = InPlaceDistillation(divergence={"a": "mse"}).compiled(BOTH, loss)
    expected = ((TEACHER - STUDENT) ** 2).mean() + VALUES["b"].mean()
    assert float(d(TEACHERS, STUDENTS)) == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize("from_logits", ["auto", True])
def test_outputs_whose_last_layer_says_nothing_are_what_the_loss_says(from_logits):
    d = divergence(LOGITS, None, from_logits=from_logits)
    expected = categorical_kl(TEACHER, STUDENT).mean()
    assert float(d(TEACHER, STUDENT)) == pytest.approx(expected, **CLOSE)
    d = divergence("mse", None, from_logits=True, divergence="kl_divergence")
    assert float(d(TEACHER, STUDENT)) == pytest.approx(expected, **CLOSE)
    d = divergence("mse", None, from_logits=False, divergence="kl_divergence")
    assert float(d(softmax(TEACHER), softmax(STUDENT))) == pytest.approx(expected, **CLOSE)


def test_temperature_is_for_the_outputs_that_have_one():
    outputs = [BOTH[0], Output("b", ("b",), 4, "linear")]
    students = {"a": STUDENT, "b": numbers(3)}
    teachers = {"a": TEACHER, "b": numbers(2)}
    said = InPlaceDistillation(temperature=2, divergence={"b": "mse"})
    d = said.compiled(outputs, {"a": LOGITS, "b": "mse"})
    expected = categorical_kl(TEACHER, STUDENT, 2).mean()
    expected += ((teachers["b"] - students["b"]) ** 2).mean()
    assert float(d(teachers, students)) == pytest.approx(expected, **CLOSE)


# Refused.


class _OwnLoss(losses.MeanSquaredError):
    pass


@pytest.mark.parametrize(
    ("loss", "activation", "settings", "message"),
    [
        ("cosine_similarity", "linear", {}, "fits output 'y' cannot be told from its loss cosine"),
        (losses.CTC(), "linear", {}, "cannot be told from its loss CTC()"),
        (losses.Dice(), "sigmoid", {}, "cannot be told from its loss Dice"),
        (losses.Poisson(), "softplus", {}, "cannot be told from its loss Poisson"),
        ("hinge", "tanh", {}, "cannot be told from its loss hinge"),
        ("binary_focal_crossentropy", "sigmoid", {}, "BinaryFocalCrossentropy"),
        (_absolute, "linear", {}, "its loss _absolute. Pass .*InPlaceDistillation.divergence="),
        (_OwnLoss(), "linear", {}, "cannot be told from its loss _OwnLoss"),
        (LOGITS, "softmax", {}, "'y' is logits is contradictory .*from_logits=True.: logits; its "),
        (BINARY_LOGITS, "sigmoid", {}, "its activation 'sigmoid': probabilities"),
        ("categorical_crossentropy", "linear", {}, "its activation 'linear': logits"),
        ("bce", "relu", {}, "its activation 'relu': logits"),
        ("categorical_crossentropy", "sigmoid", {}, "no distribution over classes"),
        ("mse", "sigmoid", {"divergence": "kl_divergence"}, "no distribution over classes"),
        (LOGITS, "linear", {"from_logits": False}, "`from_logits` of the distillation: prob"),
        ("sparse_categorical_crossentropy", "softmax", {"from_logits": True}, "contradictory"),
        ("mse", None, {"divergence": "kl_divergence"}, "'y' is logits cannot be told"),
        (
            "mse",
            "linear",
            {"divergence": "mse", "temperature": 2.0},
            "are for outputs with a KL divergence",
        ),
        (
            "mse",
            "linear",
            {"divergence": "mse", "from_logits": True},
            "are for outputs with a KL divergence",
        ),
        (losses.SparseCategoricalCrossentropy(ignore_class=0), "softmax", {}, "ignores the class"),
        (None, "linear", {}, "pass `loss` to `compile`"),
        ({"z": "mse"}, "linear", {}, "`loss` must have one value for each output, ..y.."),
        (["mse", "mae"], "linear", {}, "`loss` must have one value for each output"),
        ("mse", "linear", {"divergence": {"z": "mse"}}, "`divergence` must have one value"),
    ],
)
def test_what_is_refused_in_compile(loss, activation, settings, message):
    with pytest.raises(ValueError, match=message):
        divergence(loss, activation, **settings)


@pytest.mark.parametrize(
    "loss",
    [
        "mse",
        losses.MeanSquaredError(reduction="sum"),
        losses.mean_absolute_error,
        "mape",
        losses.MeanSquaredLogarithmicError,
        losses.Huber(delta=0.5),
        "log_cosh",
    ],
)
def test_a_regression_is_refused_unless_asked_for(loss):
    message = (
        "Output 'y' is trained on a regression loss, .*worse at every percentage.*10.2 -> 17.3 at "
        "100 %, 29.6 -> 42.3 at 25 %; see docs/decisions.md.* Leave `distillation` out, or .*"
        "InPlaceDistillation.divergence='mean_squared_error', weight=...."
    )
    with pytest.raises(ValueError, match=message):
        divergence(loss)


@pytest.mark.parametrize("said", ["auto", {"a": "kl_divergence"}, {"b": "auto"}])
def test_a_regression_among_several_outputs_is_refused_by_its_name(said):
    outputs = [BOTH[0], Output("b", ("b",), 4, "linear")]
    with pytest.raises(ValueError, match="'b' is trained on a regression loss.* dict by name"):
        InPlaceDistillation(divergence=said).compiled(outputs, {"a": LOGITS, "b": "mse"})


def test_one_class_teaches_nothing():
    with pytest.raises(ValueError, match="'y' has one unit"):
        divergence("categorical_crossentropy", "softmax", units=1)


def test_an_output_without_a_loss_has_no_divergence():
    said = InPlaceDistillation(divergence={"a": "mse"})
    with pytest.raises(ValueError, match="'a' has no loss"):
        said.compiled(BOTH, {"b": "bce"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": 0}, "`weight` must be above 0 and at most 1. Received: 0"),
        ({"weight": 1.5}, "`weight` must be above 0"),
        ({"weight": float("nan")}, "`weight` must be above 0"),
        ({"temperature": 0}, "`temperature` must be positive. Received: 0"),
        ({"temperature": float("inf")}, "`temperature` must be positive"),
        ({"from_logits": "yes"}, "`from_logits` must be 'auto', True or False. Received: 'yes'"),
        ({"from_logits": None}, "`from_logits` must be"),
        ({"divergence": "kl"}, "`divergence` must be 'auto', 'kl_divergence'.* Received: 'kl'"),
        ({"divergence": {"a": None}}, "`divergence` must be"),
        ({"divergence": 3}, "`divergence` must be"),
        ({"divergence": "categorical_crossentropy"}, "treat the teacher's output as probabil"),
        ({"divergence": [BINARY_LOGITS]}, "Pass 'kl_divergence' or 'binary_kl_divergence'"),
        ({"divergence": losses.KLDivergence()}, "Pass 'kl_divergence'"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        InPlaceDistillation(**arguments)


@pytest.mark.parametrize("other", ["teacher", lambda *_: 0, 3])
def test_other_things_are_no_distillation(other):
    with pytest.raises(ValueError, match="must be None, 'in_place' or an `InPlaceDistillation`"):
        tesla_of(distillation=other)
    assert distillation.get(None) is None


# In training.


def tesla_of(activation=None, units=4, percentages=(100, 50, 25), **arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu"),
            IDPDense(units, activation=activation, name="head"),
        ]
    )
    return kt.TESLA(model, percentages, **arguments)


def examples():
    x = numbers(0, (32, 6))
    return x, x[:, :4].argmax(-1)


def test_the_widest_learns_from_the_targets_alone():
    """Without narrower percentages in the loss, 100 % trains as without distillation."""
    x, y = examples()
    trained = []
    for how in (None, "in_place"):
        tesla = tesla_of(distillation=how, aggregation={100: 1.0, 50: 0.0, 25: 0.0})
        tesla.compile(keras.optimizers.SGD(0.1), LOGITS)
        tesla.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        trained.append(tesla.get_weights())
    for ours, theirs in zip(*trained, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)


@pytest.mark.parametrize("jit_compile", ["auto", False])
@pytest.mark.parametrize(
    ("activation", "with_logits", "with_probabilities"),
    [
        ("softmax", LOGITS, "sparse_categorical_crossentropy"),
        ("sigmoid", BINARY_LOGITS, "binary_crossentropy"),
    ],
)
@pytest.mark.slow
def test_a_last_activation_changes_nothing(
    activation, with_logits, with_probabilities, jit_compile
):
    """The same network without it, on the loss from logits, has the same gradients."""
    x, y = examples()
    if activation == "sigmoid":
        y = np.eye(4, dtype="float32")[y]
    trained = []
    for last, loss in ((None, with_logits), (activation, with_probabilities)):
        tesla = tesla_of(last, distillation=InPlaceDistillation(0.5, temperature=2.0))
        tesla.compile(keras.optimizers.SGD(0.5), loss, jit_compile=jit_compile)
        logs = tesla.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0).history
        trained.append((tesla.get_weights(), logs))
    (weights, logs), (expected, expected_logs) = trained
    # Keras' loss of probabilities clips them at 1e-7, and float32 rounds them.
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    for name, values in expected_logs.items():
        np.testing.assert_allclose(logs[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("weight", [1.0, 0.25])
@pytest.mark.slow
def test_losses_on_targets_and_divergences_are_logged_apart(weight):
    x, y = examples()
    tesla = tesla_of(distillation=InPlaceDistillation(weight))
    tesla.compile(keras.optimizers.SGD(0.0), LOGITS)
    logits = {p: tesla.predict(x, percentage=p, verbose=0) for p in (100, 50, 25)}
    logs = tesla.fit(x, y, batch_size=16, validation_data=(x, y), verbose=0).history
    on_targets = {p: float(LOGITS(y, logits[p])) for p in logits}
    taught = {p: categorical_kl(logits[100], logits[p]).mean() for p in (50, 25)}
    for split in ("", "val_"):
        for p in (100, 50, 25):
            assert logs[f"{split}p{p}_loss"] == [pytest.approx(on_targets[p], rel=1e-4)]
        for p in (50, 25):
            assert logs[f"{split}p{p}_distillation"] == [pytest.approx(taught[p], rel=1e-3)]
        assert f"{split}p100_distillation" not in logs
    mixed = sum((1 - weight) * on_targets[p] + weight * taught[p] for p in (50, 25))
    assert logs["loss"] == [pytest.approx(on_targets[100] + mixed, rel=1e-4)]
    assert logs["val_loss"] == [pytest.approx(sum(on_targets.values()), rel=1e-4)]


def test_the_widest_that_is_active_teaches():
    x, y = examples()
    tesla = tesla_of(distillation="in_place")
    tesla.compile("sgd", LOGITS)
    logits = {p: tesla.predict(x, percentage=p, verbose=0) for p in (50, 25)}
    found = tesla.evaluate(x, y, percentages=[50, 25], verbose=0, return_dict=True)
    assert set(found) == {"loss", "p50_loss", "p25_loss", "p25_distillation"}
    expected = categorical_kl(logits[50], logits[25]).mean()
    assert found["p25_distillation"] == pytest.approx(expected, rel=1e-3)
    tesla.activate([25])
    logs = tesla.fit(x, y, verbose=0).history
    assert set(logs) == {"loss", "p25_loss"}
    assert logs["loss"] == logs["p25_loss"]


def test_without_distillation_the_logs_have_none():
    x, y = examples()
    tesla = tesla_of()
    tesla.compile("sgd", LOGITS)
    assert set(tesla.fit(x, y, verbose=0).history) == {"loss", "p100_loss", "p50_loss", "p25_loss"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "units", "loss", "said"),
    nightly_after(
        2,
        [
            (None, 4, LOGITS, "auto"),
            (None, 1, "mse", "mse"),
            ("sigmoid", 1, "binary_crossentropy", "auto"),
        ],
    ),
)
def test_a_taught_percentage_is_nearer_to_the_teacher(activation, units, loss, said):
    """Than one that the same steps at 100 % leave to itself: the teacher sharpens meanwhile."""
    x, y = examples()
    if units == 1:
        y = (y[:, None] > 1).astype("float32")
    distillation = InPlaceDistillation(divergence=said)
    tesla = tesla_of(activation, units, (100, 50), distillation=distillation)
    tesla.compile(keras.optimizers.Adam(0.01), loss)
    tesla.activate([100])
    tesla.fit(x, y, epochs=60, verbose=0)
    trained, distances = tesla.get_weights(), []
    for active in ([100], [100, 50]):
        tesla.set_weights(trained)
        tesla.activate(active)
        tesla.fit(x, y, epochs=60, verbose=0)
        found = tesla.evaluate(x, y, percentages=[100, 50], verbose=0, return_dict=True)
        distances.append(found["p50_distillation"])
    left, taught = distances
    assert taught < 0.6 * left


def two_outputs(structure, **arguments):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu")(inputs)
    a, b = IDPDense(4, name="a")(x), IDPDense(2, activation="sigmoid", name="b")(x)
    model = keras.Model(inputs, {"dict": {"a": a, "b": b}, "list": [a, b]}[structure])
    return kt.TESLA(model, [100, 50], distillation="in_place", **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["dict", "list"])
def test_a_step_of_two_outputs_with_weights_of_both_kinds(structure):
    """SGD moves the weights of the heads by the gradient that NumPy finds."""
    x, a = examples()
    b = np.stack([a > 1, a % 2], -1).astype("float32")
    w = {"a": np.linspace(0, 2, 32, dtype="float32"), "b": np.linspace(1, 0, 32, dtype="float32")}
    tesla = two_outputs(structure, aggregation={100: 0.0, 50: 1.0})  # only what 50 % is taught
    pack = {"dict": lambda d: d, "list": lambda d: [d["a"], d["b"]]}[structure]
    loss, weights = {"a": LOGITS, "b": "binary_crossentropy"}, {"a": 0.5, "b": 3.0}
    tesla.compile(keras.optimizers.SGD(1.0), pack(loss), pack(weights), jit_compile=False)
    before = {name: tesla.network.get_layer(name).get_weights() for name in "ab"}
    y = {p: tesla.predict(x, percentage=p, verbose=0) for p in (100, 50)}
    y = {p: dict(zip("ab", keras.tree.flatten(v), strict=True)) for p, v in y.items()}
    hidden = np.maximum(0, x @ tesla.network.layers[1].get_weights()[0])[:, :4]  # at 50 %
    logs = tesla.fit(x, pack({"a": a, "b": b}), 32, sample_weight=pack(w), verbose=0).history
    by_logits = {
        "a": weights["a"] * (softmax(y[50]["a"]) - softmax(y[100]["a"])) / 32,
        "b": weights["b"] * (y[50]["b"] - y[100]["b"]) / (32 * 2),
    }
    for name in "ab":
        kernel = tesla.network.get_layer(name).get_weights()[0]
        expected = hidden.T @ (by_logits[name] * w[name][:, None])
        np.testing.assert_allclose(before[name][0][:4] - kernel[:4], expected, atol=1e-6)
        np.testing.assert_array_equal(kernel[4:], before[name][0][4:])
    logits = {p: np.log(v["b"] / (1 - v["b"])) for p, v in y.items()}
    taught = 0.5 * (categorical_kl(y[100]["a"], y[50]["a"]) * w["a"]).mean()
    taught += 3.0 * (binary_kl(logits[100], logits[50]) * w["b"]).mean()
    assert logs["p50_distillation"] == [pytest.approx(taught, rel=1e-3)]
    assert logs["loss"] == [pytest.approx(taught, rel=1e-3)]


@pytest.mark.parametrize(
    ("loss", "units", "said", "jit_compile"),
    [("mse", 2, "mse", False), (LOGITS, 4, "auto", False), (LOGITS, 4, "auto", "auto")],
)
def test_padding_is_not_taught(loss, units, said, jit_compile):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 3))
    x = layers.Dense(8, activation="relu")(layers.Masking(0.0)(inputs))
    distillation = InPlaceDistillation(divergence=said)
    tesla = kt.TESLA(keras.Model(inputs, IDPDense(units)(x)), [100, 50], distillation=distillation)
    tesla.compile(keras.optimizers.SGD(0.0), loss, jit_compile=jit_compile)
    x = numbers(0, (8, 6, 3))
    x[:, 3:] = 0
    x[0, 1:] = 0
    tesla.network.layers[-1].bias.assign(numbers(5, (units,)))
    y = numbers(1, (8, 6, 2)) if loss == "mse" else np.ones((8, 6), "int32")
    logs = tesla.fit(x, y, verbose=0).history
    outputs = {p: tesla.predict(x, percentage=p, verbose=0) for p in (100, 50)}
    values = (outputs[100] - outputs[50]) ** 2
    values = values.mean(-1) if loss == "mse" else categorical_kl(outputs[100], outputs[50])
    there = abs(x).sum(-1) > 0
    assert logs["p50_distillation"] == [pytest.approx(values[there].mean(), rel=1e-4)]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_divergences_are_in_float32_under_mixed_precision(policy):
    x, y = examples()
    keras.config.set_dtype_policy(policy)
    try:
        tesla = tesla_of(distillation="in_place")
    finally:
        keras.config.set_dtype_policy("float32")
    tesla.compile(keras.optimizers.SGD(0.0), LOGITS, jit_compile=False)
    logits = {p: tesla.predict(x, percentage=p, verbose=0).astype("float32") for p in (100, 50)}
    logs = tesla.fit(x, y, verbose=0).history
    expected = categorical_kl(logits[100], logits[50]).mean()
    # The outputs have 8 bits or more; their divergence has float32's.
    assert logs["p50_distillation"] == [pytest.approx(expected, rel=2e-2)]


# With callbacks.


def test_random_percentages_log_both(tmp_path):
    x, y = examples()
    tesla = tesla_of(percentages=(100, 75, 50, 25), distillation="in_place")
    tesla.compile("adam", LOGITS)
    callbacks = [
        kt.callbacks.RandomPercentages(count=1, sets=2),
        kt.callbacks.PercentageCSVLogger(tmp_path / "logs.csv"),
    ]
    tesla.fit(x, y, epochs=2, validation_data=(x, y), callbacks=callbacks, verbose=0)
    with open(tmp_path / "logs.csv") as file:
        rows = [r for r in csv.DictReader(file) if r["metric"] == "distillation"]
    validated = {r["percentage"] for r in rows if r["split"] == "validation"}
    assert validated == {"75", "50", "25"}
    assert "25" in {r["percentage"] for r in rows if r["split"] == "train"}
    assert all(float(r["value"]) > 0 for r in rows)


def test_tasks_end_by_their_loss_on_targets():
    x, y = examples()
    tesla = tesla_of(distillation="in_place")
    tesla.compile("adam", LOGITS)
    stopping = kt.callbacks.TaskWiseEarlyStopping("p{percentage}_loss", min_delta=10.0)
    logs = tesla.fit(x, y, epochs=6, callbacks=[stopping], verbose=0).history
    # An epoch sets the best value, the next one is no better: two epochs a task.
    assert len(logs["p100_loss"]) == 6
    assert len(logs["p50_loss"]) == len(logs["p50_distillation"]) == 4
    assert len(logs["p25_loss"]) == len(logs["p25_distillation"]) == 2


# Saved.


@keras.saving.register_keras_serializable("keras_tesla_tests")
def _registered(teacher, student):
    return ops.mean(ops.abs(teacher - student), -1)


@keras.saving.register_keras_serializable("keras_tesla_tests")
class _RegisteredLoss(losses.Loss):
    def __init__(self, scale, name=None, reduction="sum_over_batch_size"):
        super().__init__(name, reduction)
        self.scale = np.array([scale, scale])  # not comparable by ==

    def call(self, teacher, student):
        return ops.mean(self.scale[0] * ops.abs(teacher - student), -1)

    def get_config(self):
        return {**super().get_config(), "scale": float(self.scale[0])}


@pytest.mark.parametrize(
    "settings",
    [
        {"weight": 0.5, "temperature": 2.0},
        {"from_logits": True},
        {"divergence": "mse"},
        {"divergence": losses.MeanSquaredError(reduction="sum")},
        {"divergence": {"head": _registered}},
        {"divergence": [_registered]},
    ],
)
def test_it_comes_back_from_json(settings):
    saved = InPlaceDistillation(**settings)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(saved)))
    loaded = keras.saving.deserialize_keras_object(config)
    assert loaded.get_config() == saved.get_config()
    for name in ("weight", "temperature", "from_logits"):
        assert getattr(loaded, name) == getattr(saved, name)


def test_it_is_saved_with_the_compiled_model(tmp_path):
    x, y = examples()
    settings = {"weight": 0.5, "divergence": {"head": _registered}}
    tesla = tesla_of(distillation=InPlaceDistillation(**settings))
    tesla.compile(keras.optimizers.SGD(0.1), LOGITS)
    tesla.fit(x, y, epochs=1, verbose=0)
    tesla.save(tmp_path / "tesla.keras")
    loaded = keras.saving.load_model(tmp_path / "tesla.keras")
    assert loaded.distillation.get_config() == tesla.distillation.get_config()
    logs = [t.fit(x, y, shuffle=False, verbose=0).history for t in (tesla, loaded)]
    assert logs[0].keys() == logs[1].keys()
    for name, values in logs[0].items():
        np.testing.assert_allclose(logs[1][name], values, rtol=1e-5)


@pytest.mark.parametrize(
    "said",
    [
        losses.Huber(delta=0.5),
        losses.MeanSquaredError(dtype="float16"),
        {"head": losses.Huber(delta=0.5)},
    ],
)
def test_a_loss_that_keras_does_not_save_whole_is_refused_when_saved(said, tmp_path):
    """Keras' losses leave arguments out of their config, so they would load as another loss."""
    tesla = tesla_of(distillation=InPlaceDistillation(divergence=said))
    tesla.compile("sgd", "mse")  # it trains
    message = "(Huber|MeanSquaredError) cannot be saved: it comes back from its config with other"
    with pytest.raises(ValueError, match=message):
        tesla.save(tmp_path / "tesla.keras")


def test_an_own_loss_is_saved_as_its_config_says():
    said = InPlaceDistillation(divergence=_RegisteredLoss(2.0))
    loaded = InPlaceDistillation.from_config(said.get_config())
    np.testing.assert_array_equal(loaded.divergence.scale, [2.0, 2.0])


def test_a_model_without_it_is_saved_without_it(tmp_path):
    plain = tesla_of()
    plain.save(tmp_path / "plain.keras")
    assert keras.saving.load_model(tmp_path / "plain.keras").distillation is None


def test_older_configs_load():
    """They recorded `from_logits=True`, once the default, also of models that end in a softmax."""
    old = {"weight": 0.5, "temperature": 1.0, "from_logits": True}
    loaded = InPlaceDistillation.from_config(old)
    assert (loaded.weight, loaded.from_logits, loaded.divergence) == (0.5, "auto", "auto")
    tesla = tesla_of("softmax", distillation=loaded)
    tesla.compile("sgd", "sparse_categorical_crossentropy")
    assert InPlaceDistillation.from_config({**old, "from_logits": False}).from_logits is False
    new = InPlaceDistillation(from_logits=True).get_config()
    assert InPlaceDistillation.from_config(new).from_logits is True
    assert old["from_logits"] is True  # not changed


def test_two_models_may_share_one():
    shared = InPlaceDistillation()
    x, y = examples()
    first, second = tesla_of(distillation=shared), tesla_of("softmax", distillation=shared)
    first.compile("sgd", LOGITS)
    second.compile("sgd", "sparse_categorical_crossentropy")
    found = [t.evaluate(x, y, verbose=0, return_dict=True) for t in (first, second)]
    for name, value in found[0].items():
        assert found[1][name] == pytest.approx(value, rel=1e-4)


def test_a_refused_model_names_the_output_in_compile():
    tesla = tesla_of(distillation="in_place")
    with pytest.raises(ValueError, match="fits output 'head' cannot be told"):
        tesla.compile("sgd", "cosine_similarity")
    with pytest.raises(ValueError, match="output 'head' is logits is contradictory"):
        tesla.compile("sgd", "sparse_categorical_crossentropy")
