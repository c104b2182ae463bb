# `make demo`, `make check`, `make test` and `make docs` each work alone, with only make and Python
# 3.11 or newer.

PYTHON ?= python3
BIN := .venv/bin
# What is installed in .venv: the packages of the demo alone (50), or all of them (150).
DEMO_INSTALLED := .venv/.demo_installed
INSTALLED := .venv/.installed
# The tests that hold on every Keras backend.
PORTABLE := tests/layers tests/kinds tests/narrowing tests/training tests/callbacks tests/graph \
	tests/functional_test.py tests/extraction_test.py tests/names_test.py tests/conversion_test.py \
	tests/conversion_random_graphs_test.py tests/calibration_test.py tests/ordering_test.py \
	tests/analysis/activation_maps_test.py tests/tflite/backend_test.py

# Tracing takes most of the time, and that runs on one core.
PYTEST := $(BIN)/pytest --numprocesses=2 --dist=worksteal
EXTENT := --durations=25
# Tracing each line makes Keras a third slower, so only `make nightly` measures the coverage.
COVERAGE :=
BAZEL_TARGETS := //...

export TF_CPP_MIN_LOG_LEVEL := 3
# JAX compiles each small computation of the tests: a third of the time goes into the fastest code,
# which `make nightly` tests.
check test: export XLA_FLAGS := --xla_backend_optimization_level=0

.PHONY: demo check test nightly nightly_test nightly_bazel nightly_other_versions docs bazel lint \
	format audit clean

# Train on the digits of scikit-learn, export, verify, print and plot, with a third of the packages.
# What TensorFlow logs about itself is left out unless something fails.
demo: export KERAS_BACKEND = tensorflow
demo: $(DEMO_INSTALLED)
	@mkdir -p out
	$(BIN)/python examples/mnist_mlp.py --dataset=digits --epochs=30 --output_dir=out/demo \
		2> out/demo.log || { cat out/demo.log; exit 1; }

# What the three hold, and how a test gets into one: tests/conftest.py.
check: lint
	KERAS_BACKEND=tensorflow $(PYTEST) -m "not slow" --doctest-modules keras_tesla tests

# The documentation site is built by tests/docs_test.py.
test: lint
	KERAS_BACKEND=tensorflow $(PYTEST) $(EXTENT) --doctest-modules keras_tesla tests $(COVERAGE)
	KERAS_BACKEND=jax $(PYTEST) $(EXTENT) $(PORTABLE)
	KERAS_BACKEND=torch $(PYTEST) $(EXTENT) $(PORTABLE)

# About two hours. With `make -k nightly` one that fails does not keep the others from running.
nightly: nightly_test nightly_bazel nightly_other_versions

nightly_test:
	$(MAKE) test EXTENT="$(EXTENT) --nightly" XLA_FLAGS= \
		COVERAGE="--cov --cov-report=term-missing --cov-fail-under=96"

nightly_bazel:
	$(MAKE) bazel BAZEL_TARGETS="--config=all //..."

nightly_other_versions:
	tools/other_versions.sh $(PYTHON) lowest
	tools/other_versions.sh python3.12 newest
	tools/other_versions.sh python3.13 newest

# The tests in sandboxes without network, after tools/bazel_setup.sh. All BUILD files are read,
# whichever targets run. Bazel 4 has the rules of Python built in, which buildifier would have loaded.
bazel: $(INSTALLED)
	find . -path './.*' -prune \
		-o '(' -name BUILD.bazel -o -name WORKSPACE -o -name '*.bzl' ')' -print \
		| xargs .tools/bazel/node_modules/.bin/buildifier \
			-mode=check -lint=warn -warnings=-native-py
	bazel build --nobuild //...
	bazel test $(BAZEL_TARGETS)

# The documentation site, out/site. A link that leads nowhere is an error.
docs: export NO_MKDOCS_2_WARNING = true
docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Asks an advisory service on the network, so it is no part of `make test`.
audit:
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install --quiet pip-audit
	.audit/bin/pip-audit --requirement requirements-test.lock --no-deps --disable-pip

# setuptools comes from the lock too, so the package builds without another download.
$(DEMO_INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
		"keras_tesla needs Python 3.11 or newer. Received: $(PYTHON) is Python " \
		+ sys.version.split()[0] + ". Name another with: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(INSTALLED): $(DEMO_INSTALLED) requirements-test.lock
	$(BIN)/python -m pip install --quiet --requirement requirements-test.lock
	@touch $@

clean:
	rm -rf .venv .audit .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache *.egg-info build dist out
