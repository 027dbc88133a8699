# Every verb does its own set-up; a second call finds it done.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
INSTALLED := $(VENV)/.installed
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# Bytecode is made of what is imported, and kept, whatever the environment says: pip would compile thousands of modules
# that nothing here imports, and without any kept, each worker of the tests would compile them for a minute.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := -m pip install --quiet --no-compile
# In its strict branch MKL rounds every row of a matrix product alike; `MKL_CBWR= make test` does without.
MKL_CBWR ?= $(shell $(PYTHON) -P src/unperturbed/processor.py)
export MKL_CBWR
SLOW ?= slow
FOREIGN_TESTS ?= not long
NEWEST_TORCH := 2.14.1
NEWEST_TORCHVISION := 0.29.1

.PHONY: help setup demo check docs test test-slow test-docs test-loops test-foreign test-rounding test-newest bench dist clean

help:
	@echo "make demo       train and evaluate on the embedded digits"
	@echo "make check      ruff and mypy"
	@echo "make docs       build the documentation site into site/, with executed notebooks of the tutorials"
	@echo "make test       the fast tests"
	@echo "make test-slow  the slow tests"
	@echo "make test-docs  the tests of the documentation, slow ones included"
	@echo "make test-loops  the tests of Lightning and transformers, which are installed into .venv-loops"
	@echo "make test-foreign  the tests of models of timm, torchvision and transformers, installed into .venv-foreign"
	@echo "make test-rounding  the tests of rounding again, as on other processors"
	@echo "make test-newest    the fast tests with the newest torch"
	@echo "make bench      ratios of time and memory, beside plain PyTorch and other libraries, installed into .venv-bench"
	@echo "make dist       build wheel and sdist, and run the demo from the wheel in a fresh environment"
	@echo "make clean      remove the virtual environment and all caches (never runs/)"

setup: $(READY)

CONSTRAINTS := constraints.txt

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) --constraint $(CONSTRAINTS) --editable ".[dev]"
	touch $@ $(INSTALLED)

# The demo needs the package alone.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) --constraint $(CONSTRAINTS) --editable .
	touch $@

demo: $(INSTALLED)
	$(BIN)/unperturbed demo

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python $(INSTALL) --constraint $(CONSTRAINTS) --editable ".[docs]"
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build -W --keep-going -q -j auto docs site
	@echo "The site is site/index.html."

test: $(READY)
	$(PYTEST) -n auto --maxprocesses 8

test-slow: $(READY)
	$(PYTEST) -n auto --maxprocesses 8 -m "$(SLOW)"

test-docs: $(READY)
	$(PYTEST) -m "not long" tests/test_docs.py tests/test_docs_python.py tests/test_examples.py tests/test_contributing.py

test-loops:
	test -x .venv-loops/bin/python || $(PYTHON) -m venv .venv-loops
	.venv-loops/bin/python $(INSTALL) --constraint constraints.txt --editable ".[test,lightning,transformers]"
	OMP_NUM_THREADS=1 .venv-loops/bin/python -m pytest -m "" tests/adapters tests/test_docs_loops.py

FOREIGN := .venv-foreign/.ready

$(FOREIGN): pyproject.toml constraints.txt
	test -x .venv-foreign/bin/python || $(PYTHON) -m venv .venv-foreign
	grep -v '^torch==' constraints.txt > .venv-foreign/constraints.txt
	.venv-foreign/bin/python $(INSTALL) --constraint .venv-foreign/constraints.txt torch==$(NEWEST_TORCH) torchvision==$(NEWEST_TORCHVISION) --editable ".[test,vision]"
	touch $@

test-foreign: $(FOREIGN)
	OMP_NUM_THREADS=1 .venv-foreign/bin/python -m pytest -n auto --maxprocesses 8 -m "$(FOREIGN_TESTS)" tests/architectures tests/test_docs_foreign.py

ROUNDING := $(shell grep -rl --include='test_*.py' mark.rounding tests)

test-rounding: $(READY)
	MKL_CBWR= $(PYTEST) -n auto --maxprocesses 8 -m "rounding and not slow" $(ROUNDING)
	MKL_CBWR=AVX2,STRICT ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(PYTEST) -n auto --maxprocesses 8 -m "rounding and not slow" $(ROUNDING)
	$(PYTEST) -n auto --maxprocesses 8 -m "rounding and not slow" $(ROUNDING) --rows-by-place

test-newest:
	mkdir -p .venv-newest
	sed 's/^torch==.*/torch==$(NEWEST_TORCH)/' constraints.txt > .venv-newest/constraints.txt
	$(MAKE) test VENV=.venv-newest CONSTRAINTS=.venv-newest/constraints.txt

# `make bench BENCH=--check` fails where a ratio is over 20% above benchmarks/baseline.json.
bench:
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python $(INSTALL) --constraint constraints.txt --editable ".[bench]"
	OMP_NUM_THREADS=1 .venv-bench/bin/python -m benchmarks $(BENCH)

# The wheel is built from the sdist. PYTHON=python3.13 checks another Python.
dist:
	rm -rf dist build .venv-dist
	$(PYTHON) -m venv .venv-dist/builder
	$(PYTHON) -m venv .venv-dist/clean
	.venv-dist/builder/bin/python $(INSTALL) build
	.venv-dist/builder/bin/python -m build
	.venv-dist/clean/bin/python $(INSTALL) --constraint constraints.txt dist/*.whl
	.venv-dist/clean/bin/python -m pip check
	OMP_NUM_THREADS=1 .venv-dist/clean/bin/python packaging/check_wheel.py

clean:
	rm -rf $(VENV) .venv-newest .venv-dist .venv-loops .venv-foreign .venv-bench .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks build dist
	find src tests -name __pycache__ -prune -exec rm -rf {} +
	rm -rf src/*.egg-info
