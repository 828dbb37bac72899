# Every target makes its own environment, in .venv, and needs nothing but Python 3.11+, pip, venv and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest -p jarvis.conformance.plugin
QUESTIONS := one_caller cold_start many_threads many_processes growth json_file awaiting asking looking_back forgetting sweeping compression encryption caching postgresql awaiting_a_server moving analytics text_search meaning

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types soak bench bench-quick bench-retrieval profile docs clean

help:  ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jarvis needs Python 3.11 or newer; use make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $(READY)

demo: $(READY)  ## learn this machine, remember it in another process, survive kill -9, move, share a server
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

soak: $(READY)  ## the tests of safety and of contexts with their full numbers; takes hours, writes the figures that are checked in
	$(PYTEST) --soak tests/safety tests/test_contexts.py -v

bench: $(READY)  ## measure everything, in about a quarter of an hour; writes the figures, tables and chart that are checked in
	set -e; for question in $(QUESTIONS); do $(BIN)/python -m benchmarks.$$question --write; done
	$(BIN)/python -m benchmarks.report

bench-quick: $(READY)  ## measure a little of everything, in about two minutes; writes nothing
	set -e; for question in $(QUESTIONS); do $(BIN)/python -m benchmarks.$$question --quick; done

bench-retrieval: $(READY)  ## how well it finds memories, in the conversations of a file: make bench-retrieval DATA=locomo10.json
	$(BIN)/python -m benchmarks.retrieval $(DATA)

profile: $(READY)  ## where the time of one create and of one get goes; writes what is checked in
	$(BIN)/python -m benchmarks.profiles --write

clean:
	rm -rf $(VENV) .venv-benchmarks .mypy_cache .ruff_cache .pytest_cache .hypothesis
