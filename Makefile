# Two commands: `make retrain` runs the whole pipeline, `make test` checks it. Both make the environment first.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Extra arguments for pip, e.g. an index of your own: make env PIP_ARGS="--index-url …"
PIP_ARGS ?=
# Processes that share the tests, a file at a time
TEST_WORKERS ?= 2

.PHONY: help env retrain federation-demo test tests soak lint types format lock clean

help:
	@echo "make retrain [MANIFEST=clips.csv] [ARGS='--preset compact …']   the whole pipeline, from audio to report"
	@echo "make federation-demo                                          a SuperLink and four sites as processes, one of them killed"
	@echo "make test                                                     lint, types and tests"
	@echo "make soak                                                     every seed and pattern (hours)"
	@echo "make lock                                                     resolve pyproject.toml into requirements.lock afresh"

env: $(STAMP)

# The lock file decides what is installed; pyproject.toml only how our own packages are found.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "cryfed needs Python 3.11, found $$($(PYTHON) --version): make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/pip check
	@touch $(STAMP)

retrain: env
	$(BIN)/cryfed retrain $(if $(MANIFEST),--manifest "$(MANIFEST)") $(ARGS)

federation-demo: env
	$(BIN)/cryfed federation demo

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

# types are checked beside the tests: many of these wait for servers, and leave a core idle
test: lint
	@$(MAKE) --no-print-directory -j 2 types tests

tests: env
	$(BIN)/pytest -m "not soak" -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

soak: env
	$(BIN)/pytest -m soak --timeout 7200

format: env
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A fresh environment from pyproject.toml's ranges, frozen.
lock:
	rm -rf .lock-venv && $(PYTHON) -m venv .lock-venv
	.lock-venv/bin/pip install --quiet $(PIP_ARGS) hatchling editables
	.lock-venv/bin/pip install --quiet --no-build-isolation $(PIP_ARGS) -e ".[dev]"
	.lock-venv/bin/pip check
	.lock-venv/bin/pip freeze --exclude-editable | sed 's/ @ .*//; s/+cpu$$//' > requirements.lock
	rm -rf .lock-venv

clean:
	rm -rf runs .cryfed build dist .pytest_cache .mypy_cache .ruff_cache
