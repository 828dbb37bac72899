# Every target makes its own environment, in .venv, and needs nothing but Python 3.11+, pip, venv and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest -p jarvis.conformance.plugin

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types soak bench docs clean

help:  ## show the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jarvis needs Python 3.11 or newer; use make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $(READY)

demo: $(READY)  ## learn this machine, remember it in another process, survive kill -9
	$(BIN)/python examples/demo.py

test: $(READY)  ## all tests, in minutes
	$(PYTEST) -n 2 --dist loadgroup

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

check: lint types test  ## what continuous integration runs: lint, format, types, layering, docs, tests

docs: $(READY)  ## run every example of the README, the docs and the docstrings
	$(PYTEST) tests/test_docs.py tests/test_docstrings.py -v

soak: $(READY)  ## the safety tests with their full numbers; takes hours, writes the figures that are checked in
	$(PYTEST) --soak tests/safety -v

bench: $(READY)  ## what there is to measure so far: counts, not times
	$(PYTEST) tests/test_by_construction.py -v -s

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
