# Everything runs from .venv, which these targets make if it is missing.
# PYTHON: the interpreter that .venv is made with (3.11 or later).
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
SOURCES := $(shell find graphc passes backends examples -name '*.py') pyproject.toml README.md LICENSE
# mypy must look at the installed package, not at the checkout, so it runs from a folder without one
MYPY_HOME := .venv/mypy

.PHONY: demo test test-all lint types bench clean

demo: .venv/.demo
	$(BIN)/graphc demo

test: lint types
	$(BIN)/python -m pytest -n 2 -m "not long"

test-all: lint types
	$(BIN)/python -m pytest -n 2

lint: .venv/.test
	$(BIN)/ruff check graphc passes backends examples benchmarks tests

types: .venv/.test
	mkdir -p $(MYPY_HOME)
	cd $(MYPY_HOME) && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p graphc

# graphc beside its peers; BENCH holds options, as in: make bench BENCH="--rows chain mlp --threads 1"
bench: .venv/.test
	$(BIN)/python benchmarks/peers/environments.py
	$(BIN)/python benchmarks/peers/run.py $(BENCH)

# The stamps say which extras .venv holds; a change of any source installs the package again,
# without its requirements, and a change of pyproject.toml installs those too.
.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "graphc needs Python 3.11 or later: make PYTHON=...")'
	$(PYTHON) -m venv .venv

.venv/.examples: pyproject.toml | .venv/bin/python
	rm -rf build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[examples]'
	touch $@

.venv/.tests: pyproject.toml | .venv/bin/python
	rm -rf build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '.[test]'
	touch $@ .venv/.examples

# build/ is removed first: setuptools would pack modules that are no longer in the sources
.venv/.demo: .venv/.examples $(SOURCES)
	rm -rf build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall .
	touch $@

.venv/.test: .venv/.tests .venv/.demo
	touch $@

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
