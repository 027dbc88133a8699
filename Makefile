# Every verb does its own set-up; a second call finds it done.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# In its strict branch MKL rounds every row of a matrix product alike; `MKL_CBWR= make test` does without.
MKL_CBWR ?= $(shell $(PYTHON) -P src/unperturbed/processor.py)
export MKL_CBWR
SLOW ?= slow
NEWEST_TORCH := 2.14.1

.PHONY: help setup demo check test test-slow test-rounding test-newest bench clean

help:
	@echo "make demo       train and evaluate on the embedded digits"
	@echo "make check      ruff and mypy"
	@echo "make test       the fast tests"
	@echo "make test-slow  the slow tests"
	@echo "make test-rounding  the tests of rounding again, as on other processors"
	@echo "make test-newest    the fast tests with the newest torch"
	@echo "make bench      the benchmarks"
	@echo "make clean      remove the virtual environment and all caches (never runs/)"

setup: $(READY)

CONSTRAINTS := constraints.txt

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[dev]"
	touch $@

demo: $(READY)
	$(BIN)/unperturbed demo

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: $(READY)
	$(PYTEST) -n auto --maxprocesses 8

test-slow: $(READY)
	$(PYTEST) -n auto --maxprocesses 8 -m "$(SLOW)"

test-rounding: $(READY)
	MKL_CBWR= $(PYTEST) -n auto --maxprocesses 8 -m "rounding and not slow"
	MKL_CBWR=AVX2,STRICT ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(PYTEST) -n auto --maxprocesses 8 -m "rounding and not slow"
	$(PYTEST) -n auto --maxprocesses 8 -m "rounding and not slow" --rows-by-place

test-newest:
	mkdir -p .venv-newest
	sed 's/^torch==.*/torch==$(NEWEST_TORCH)/' constraints.txt > .venv-newest/constraints.txt
	$(MAKE) test VENV=.venv-newest CONSTRAINTS=.venv-newest/constraints.txt

bench: $(READY)
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) .venv-newest .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks build dist
	find src tests -name __pycache__ -prune -exec rm -rf {} +
	rm -rf src/*.egg-info
