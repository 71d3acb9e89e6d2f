# make demo   trains and evaluates a small refined model on generated images; about a quarter of an hour on two CPU cores
# make test   linters, types, and the tests that take a few minutes together
# Both make .venv first if it is missing or older than the requirements. PYTHON chooses the interpreter (3.10 or newer).

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test

demo: .venv/installed
	$(BIN)/torchrun scripts/train.py --model dance --refine

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

.venv/installed: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit("make PYTHON=...: 3.10 or newer is needed" if sys.version_info < (3, 10) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(PIP) install -r requirements-dev.txt
	touch $@
