"""What all tests share: how many run, strict settings, and the three ways to run a model.

Three amounts of tests, each with more than the one before:

- `make check`: TensorFlow, without the tests marked `slow` (over about three seconds with all
  parameters).
- `make test`, on every push: on TensorFlow these, too. JAX and PyTorch run what is quick and
  depends on the backend: not what is marked `slow`, or `backend_free`, whose code never asks for
  it. Of a test with parameters JAX, which compiles each of them, runs about half.
- `make nightly` gives pytest the option `--nightly`: all, also what is marked
  `nightly` (it repeats another test on more networks, or runs whole programs for long), and more
  examples of each Hypothesis test.

A test left out is deselected. One that is skipped misses something on this machine.
"""

import gc
import shutil
import types
import zlib

import hypothesis
import keras
import numpy as np
import pytest

import keras_tesla
from keras_tesla import extraction, graph
from keras_tesla.narrowing import executor, plan
from keras_tesla.narrowing.live import LivePlan
from tests.chromium import Chromium

BACKEND = keras.backend.backend()

if BACKEND == "tensorflow":
    import tensorflow as tf

    def _iterate(dataset, iterate=tf.data.Dataset.__iter__):
        options = tf.data.Options()
        options.autotune.enabled = False
        return iterate(dataset.with_options(options))

    # An iterator that ends waits for its tuning thread. The thread may miss the call to stop, and
    # then sleeps on, up to a minute: CancellationManager (TensorFlow 2.21) calls it before it says
    # that it is cancelled. That was a fifth of the time of all tests.
    tf.data.Dataset.__iter__ = _iterate

# {backend: examples of a Hypothesis test on a push, and every night}. JAX compiles every shape.
EXAMPLES = {"tensorflow": (25, 40), "torch": (10, 40), "jax": (5, 15)}


def pytest_addoption(parser):
    parser.addoption("--nightly", action="store_true", help="run all tests on all their examples")


def pytest_configure(config):
    # The same examples on every run, and no time limit: a shared machine is now and then slow.
    hypothesis.settings.register_profile(
        "keras_tesla",
        deadline=None,
        derandomize=True,
        database=None,
        max_examples=EXAMPLES[BACKEND][config.getoption("nightly")],
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("keras_tesla")


def pytest_collection_modifyitems(config, items):
    left_out = set()
    if not config.getoption("nightly"):
        left_out = {"nightly"}
        if BACKEND != "tensorflow":
            left_out |= {"slow", "backend_free"}
    if BACKEND != "tensorflow":
        left_out.add("tensorflow")
    halved = BACKEND == "jax" and not config.getoption("nightly")
    chosen, deselected = [], []
    for item in items:
        out = left_out & {marker.name for marker in item.iter_markers()}
        (deselected if out or (halved and _is_of_other_half(item)) else chosen).append(item)
    config.hook.pytest_deselected(items=deselected)
    items[:] = chosen


def _is_of_other_half(item):
    """Whether a test with these parameters is of one of two halves, always the same one."""
    return hasattr(item, "callspec") and zlib.crc32(item.name.encode()) % 2 == 1


def pytest_collection_finish(session):
    # What was imported stays: without it a collection of garbage takes a tenth of the time.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    program = shutil.which("chromium-headless-shell")
    if program is None:
        pytest.skip("chromium-headless-shell is not installed; tools/setup_browser.sh does it")
    made = Chromium(program)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _seed():
    keras.utils.set_random_seed(0)


def _numpy(structure):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, structure)


def _run_three_ways(model, x, percentage):
    planned = plan.narrow(graph.read(model), percentage)
    live = LivePlan(planned)
    with keras_tesla.percentage_scope(percentage):
        scoped = model(x)
    values = live.run(
        executor.bind_inputs(planned.graph, x), planned.steps, add_loss=lambda loss: None
    )
    extracted = extraction.extract(planned, "extracted")
    return types.SimpleNamespace(
        scoped=_numpy(scoped),
        live=_numpy(executor.outputs_of(planned, values)),
        extracted=_numpy(extracted(x)),
        model=extracted,
    )


@pytest.fixture(scope="session")
def run_three_ways():
    """A function `(model, x, percentage)` that runs the model

    - `scoped`: as it is, in a percentage scope: nothing is narrowed, so this is the oracle,
    - `live`: narrowed, on the weights of the full model, as in training,
    - `extracted`: as a plain Keras model of its own, which is returned as `model`.
    """
    return _run_three_ways


@pytest.fixture(scope="session")
def assert_same_three_ways():
    """A function `(model, x, percentage)`: asserts equal outputs and returns the plain model."""

    def check(model, x, percentage):
        results = _run_three_ways(model, x, percentage)
        keras.tree.assert_same_structure(results.scoped, results.live)
        keras.tree.assert_same_structure(results.scoped, results.extracted)
        for other in (results.live, results.extracted):
            pairs = zip(keras.tree.flatten(results.scoped), keras.tree.flatten(other), strict=True)
            for expected, actual in pairs:
                # The same float32 terms summed in another order: a few units in the last place
                # of the largest output. A channel too many or too few changes the first digits.
                largest = max(1.0, float(np.abs(expected).max()))
                np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=2e-5 * largest)
        return results.model

    return check


@pytest.fixture(scope="session")
def gradients():
    """A function `(loss, variables)`: the gradients of `loss()`, on any backend, as arrays."""
    return {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[BACKEND]


def _tensorflow(loss, variables):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = loss()
    found = tape.gradient(
        value,
        [v.value for v in variables],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return _numpy([tf.convert_to_tensor(g) for g in found])


def _jax(loss, variables):
    import jax

    def stateless(values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return loss()

    return _numpy(jax.grad(stateless)([v.value for v in variables]))


def _torch(loss, variables):
    import torch

    values = [v.value for v in variables]
    found = torch.autograd.grad(loss(), values, allow_unused=True)
    zeros = [torch.zeros_like(v) for v in values]
    return _numpy([z if g is None else g for g, z in zip(found, zeros, strict=True)])
