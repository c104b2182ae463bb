"""In-place distillation: the loss, what it is applied to, and what is refused."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_tesla as kt
from keras_tesla.layers import IDPDense
from keras_tesla.training import distillation
from keras_tesla.training.distillation import InPlaceDistillation

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def divergence(teacher, student, temperature=1.0):
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(-1)


def outputs(seed):
    return np.random.default_rng(seed).normal(size=(5, 4)).astype("float32")


def tesla_of(**arguments):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, activation="relu"), IDPDense(4, name="logits")]
    )
    return kt.TESLA(model, [100, 50, 25], **arguments)


def examples():
    x = np.random.default_rng(0).standard_normal((32, 6)).astype("float32")
    return x, x[:, :4].argmax(-1)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_it_is_the_divergence_from_the_widest(temperature):
    teacher, student = outputs(0), outputs(1)
    loss = InPlaceDistillation(temperature=temperature)(7.0, teacher, student)
    expected = divergence(teacher, student, temperature).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-4)  # float32 sums


def test_a_part_of_the_loss_on_the_targets_may_stay():
    teacher, student = outputs(0), outputs(1)
    loss = InPlaceDistillation(weight=0.25)(7.0, teacher, student)
    expected = 0.75 * 7.0 + 0.25 * divergence(teacher, student).mean()
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_probabilities_are_compared_as_they_are():
    teacher, student = softmax(outputs(0)), softmax(outputs(1))
    loss = InPlaceDistillation(from_logits=False)(0.0, teacher, student)
    assert float(loss) == pytest.approx(divergence(outputs(0), outputs(1)).mean(), rel=1e-4)


def test_examples_are_weighted_as_in_a_keras_loss():
    teacher, student = outputs(0), outputs(1)
    weights = np.array([0.0, 2.0, 1.0, 0.0, 3.0], "float32")
    loss = InPlaceDistillation()(0.0, teacher, student, weights)
    # Keras divides a weighted sum by the number of examples.
    assert float(loss) == pytest.approx((divergence(teacher, student) * weights).mean(), rel=1e-4)


def test_several_outputs_add_up():
    teacher = {"a": outputs(0), "b": outputs(1)}
    student = {"a": outputs(2), "b": outputs(3)}
    loss = InPlaceDistillation()(0.0, teacher, student)
    expected = sum(divergence(teacher[k], student[k]).mean() for k in teacher)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_the_widest_learns_from_the_targets_alone():
    """Without narrower percentages in the loss, 100 % trains as without distillation."""
    x, y = examples()
    trained = []
    for how in (None, "in_place"):
        tesla = tesla_of(distillation=how, aggregation={100: 1.0, 50: 0.0, 25: 0.0})
        tesla.compile(keras.optimizers.SGD(0.1), LOSS)
        tesla.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        trained.append(tesla.get_weights())
    for ours, theirs in zip(*trained, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)


def test_training_loss_is_that_of_the_formula_and_validation_loss_is_not():
    x, y = examples()
    tesla = tesla_of(distillation=InPlaceDistillation())
    tesla.compile(keras.optimizers.SGD(0.0), LOSS)
    logits = {p: tesla.predict(x, percentage=p, verbose=0) for p in (100, 50, 25)}
    history = tesla.fit(x, y, batch_size=32, validation_data=(x, y), verbose=0).history
    for p in (50, 25):
        taught = divergence(logits[100], logits[p]).mean()
        on_targets = float(LOSS(y, logits[p]))
        assert history[f"p{p}_loss"][0] == pytest.approx(taught, rel=1e-3)
        assert history[f"val_p{p}_loss"][0] == pytest.approx(on_targets, rel=1e-4)
    assert history["p100_loss"][0] == pytest.approx(float(LOSS(y, logits[100])), rel=1e-4)


def test_narrow_percentages_approach_the_teacher():
    x, y = examples()
    tesla = tesla_of(distillation="in_place")
    tesla.compile(keras.optimizers.Adam(0.01), LOSS)

    def distance():
        wide = tesla.predict(x, percentage=100, verbose=0)
        return divergence(wide, tesla.predict(x, percentage=50, verbose=0)).mean()

    tesla.activate([100])
    tesla.fit(x, y, epochs=60, verbose=0)
    of_100_alone = distance()
    tesla.activate([100, 50, 25])
    tesla.fit(x, y, epochs=60, verbose=0)
    assert distance() < 0.5 * of_100_alone


def test_it_is_saved_with_the_model(tmp_path):
    tesla = tesla_of(distillation=InPlaceDistillation(0.5, temperature=2.0))
    tesla.save(tmp_path / "tesla.keras")
    loaded = keras.saving.load_model(tmp_path / "tesla.keras")
    assert loaded.distillation.get_config() == tesla.distillation.get_config()
    plain = tesla_of()
    plain.save(tmp_path / "plain.keras")
    assert keras.saving.load_model(tmp_path / "plain.keras").distillation is None


def test_no_gradient_reaches_the_teacher():
    loss = InPlaceDistillation()(0.0, ops.convert_to_tensor(outputs(0)), outputs(0))
    assert float(loss) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": 0}, "`weight` must be above 0 and at most 1. Received: 0"),
        ({"weight": 1.5}, "`weight` must be above 0"),
        ({"weight": float("nan")}, "`weight` must be above 0"),
        ({"temperature": 0}, "`temperature` must be positive. Received: 0"),
        ({"temperature": float("inf")}, "`temperature` must be positive"),
        ({"temperature": 2.0, "from_logits": False}, "A temperature needs logits"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        InPlaceDistillation(**arguments)


def test_other_things_are_no_distillation():
    with pytest.raises(ValueError, match="must be None, 'in_place' or an `InPlaceDistillation`"):
        tesla_of(distillation="teacher")
    assert distillation.get(None) is None
