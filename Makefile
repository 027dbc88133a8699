# Every verb does its own set-up; a second call finds it done.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo check test test-slow bench clean

help:
	@echo "make demo       train and evaluate on the embedded digits"
	@echo "make check      ruff and mypy"
	@echo "make test       the fast tests"
	@echo "make test-slow  the slow tests"
	@echo "make bench      the benchmarks"
	@echo "make clean      remove the virtual environment and all caches (never runs/)"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(READY)
	$(BIN)/unperturbed demo

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

bench: $(READY)
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks build dist
	find src tests -name __pycache__ -prune -exec rm -rf {} +
	rm -rf src/*.egg-info
