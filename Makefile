PYTHON ?= python3
MPLBACKEND ?= Agg
export MPLBACKEND
export PIP_DISABLE_PIP_VERSION_CHECK = 1

BIN := .venv/bin
STAMP := .venv/.installed
BENCH_STAMP := .venv/.bench-installed
DOCS_STAMP := .venv/.docs-installed
ARVIZ_1_STAMP := .venv-arviz-1/.installed
OLDEST_STAMP := .venv-oldest/.installed
# All tests of a file run on one worker, so that its fixtures are set up once.
PARALLEL := -n auto --dist loadgroup --no-loadscope-reorder
BENCH ?=
QUICK ?=
DATA ?=
FOLDER = $(if $(DATA),--data "$(DATA)")

# ArviZ 1.x is for Python 3.12 and later.
NEWER ?= $(shell for python in python3.14 python3.13 python3.12 \
	$$(ls -d "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[2-4]*/bin/python3 2> /dev/null | sort -rV); \
	do "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2> /dev/null \
		&& echo "$$python" && break; done)

# The lowest versions have no wheels for later versions of Python.
OLDEST ?= python3.11

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-arviz-1 test-oldest coverage docs lint format examples paper bench bench-uci bench-tables

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "The first target that you run installs into .venv; later ones need no network."
	@echo "Another interpreter: rm -r .venv, then make test PYTHON=python3.12"

demo: $(STAMP)  ## Run the demonstration; it writes to demo-output/
	$(BIN)/pyrobbb demo

test: $(STAMP)  ## Run the tests, on all cores
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-all: $(STAMP)  ## Run all tests, including the slow ones
	$(BIN)/python -m pytest $(PARALLEL)

coverage: $(STAMP)  ## Run the tests, and report their coverage of lines and branches
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow" --cov=pyrobbb --cov-report=term

test-arviz-1:  ## Run the ArviZ tests with ArviZ 1.x, if Python 3.12 or later is installed
	@if test -z "$(NEWER)"; then \
		echo "Skipped: ArviZ 1.x needs Python 3.12 or later, which was not found."; \
	else \
		echo "ArviZ 1.x on $$("$(NEWER)" -V)" && \
		$(MAKE) --no-print-directory $(ARVIZ_1_STAMP) && \
		.venv-arviz-1/bin/python -m pytest $(PARALLEL) -m "arviz and not slow"; \
	fi

# Tests of notebooks and examples need further packages, whose lowest versions are not pinned.
test-oldest: $(OLDEST_STAMP)  ## Run the tests with the lowest versions, on Python 3.11; installs 6 GB
	.venv-oldest/bin/python -m pytest $(PARALLEL) -m "not slow" --ignore=tests/test_examples.py

docs: $(DOCS_STAMP)  ## Build the documentation into docs/_build/html; QUICK=1 for a smoke test
	PYROBBB_QUICK=$(QUICK) $(BIN)/python -m sphinx -W --keep-going -q -j auto docs docs/_build/html

lint: $(STAMP)  ## Check style, formatting and types
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

format: $(STAMP)  ## Format the code and apply safe lint fixes
	$(BIN)/python -m ruff check --fix
	$(BIN)/python -m ruff format

examples: $(STAMP)  ## Run every example
	@set -e; for example in examples/*.py; do \
		echo "$$example"; \
		$(BIN)/python "$$example"; \
	done
	PATH="$(CURDIR)/$(BIN):$$PATH" examples/cli_tour.sh

paper: $(STAMP)  ## Reproduce the paper's experiments (hours); data from DATA=folder or openml.org
	$(BIN)/python examples/paper/curve.py --full
	$(BIN)/python examples/paper/tutorial.py --full $(FOLDER)
	$(BIN)/python examples/paper/bandit.py --full $(FOLDER)
	$(BIN)/python examples/paper/mnist.py --full $(FOLDER)
	$(BIN)/python examples/paper/pruning.py --full $(FOLDER)

bench: $(BENCH_STAMP)  ## Time pyrobbb and other libraries; BENCH=--quick for a smoke test
	$(BIN)/python benchmarks/run.py $(BENCH)

bench-uci: $(BENCH_STAMP)  ## Score pyrobbb on the UCI data sets in DATA=folder; writes benchmarks/UCI.md
	$(BIN)/python benchmarks/uci.py $(FOLDER)

bench-tables: $(BENCH_STAMP)  ## Score pyrobbb and other libraries on teaching tables; writes TABLES.md, CLASSIFIERS.md
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/classifiers.py $(FOLDER)

# The stamp is written last, so that an interrupted installation is resumed. A .venv without a working
# pip was interrupted while it was created, and is created again.
$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" > /dev/null || { \
		echo "'$(PYTHON)' was not found; set PYTHON to Python 3.11 or later: make PYTHON=python3.12" >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "pyrobbb needs Python 3.11 or later, but '$(PYTHON)' is `"$(PYTHON)" -V 2>&1`;" \
			"set another: make PYTHON=python3.12" >&2; \
		exit 1; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	@touch $(STAMP)

$(ARVIZ_1_STAMP): pyproject.toml constraints.txt
	"$(NEWER)" -m venv --clear .venv-arviz-1
	.venv-arviz-1/bin/python -m pip install -q -c constraints.txt -e ".[dev]"
	@touch $(ARVIZ_1_STAMP)

$(OLDEST_STAMP): pyproject.toml constraints-oldest.txt
	"$(OLDEST)" -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install -q -c constraints-oldest.txt -e ".[parquet,test]"
	@touch $(OLDEST_STAMP)

$(BENCH_STAMP): $(STAMP)
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev,bench]"
	$(BIN)/python -m pip install -c constraints.txt --no-deps ISLP  # for its tables alone
	@touch $(BENCH_STAMP)

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev,docs]"
	@touch $(DOCS_STAMP)
