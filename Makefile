# make setup       .venv with everything to run and develop; the other targets call it
# make serve       the server; make serve ARGS="--port 4242 --data-dir /srv/x" passes flags on
# make test        all tests, in two processes; make test ARGS=tests/unit for some, in one
# make lint        style, types, layers
# make bench       speed beside the other servers that are installed
# make fuzz soak mutants    the long versions of what make test does shortly
# make image-test  the Dockerfile, built without a hub and tried (as root on Debian)
# make config      config/pacslite.toml from the settings model
# make lock        requirements/*.txt from pyproject.toml

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Set in many images; every start would then compile everything again (2 s instead of 0.4)
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONPATH

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
PYTHON ?= python3
ARGS ?=

.PHONY: help setup serve test lint format bench fuzz soak mutants image-test config lock clean

help:
	@sed -n 's/^# //p;/^$$/q' Makefile

setup: $(STAMP)

$(STAMP): requirements/dev.txt pyproject.toml
	@./tools/setup "$(PYTHON)" "$(VENV)"
	@touch $@

serve: setup
	@exec $(BIN)/pacslite serve $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: setup
	@./tests/install-peers
	$(BIN)/python -m pytest $(or $(ARGS),--numprocesses=2 --dist=loadfile --no-loadscope-reorder)

bench: setup
	$(BIN)/python -m benchmarks $(ARGS)

# The same tests as in "make test", with more rounds: they read these numbers
fuzz: setup
	PACSLITE_FUZZ_CASES=$${PACSLITE_FUZZ_CASES:-100000} $(BIN)/python -m pytest tests -k "fuzz or oracle" --timeout=7200 $(ARGS)

soak: setup
	@./tests/install-peers
	PACSLITE_FUZZ_CASES=1000000 PACSLITE_TEST_KILL_ROUNDS=500 PACSLITE_TEST_POWER_CUTS=200 \
		$(BIN)/python -m pytest tests/faults tests/unit/dataset --timeout=14400 $(ARGS)

# mutmut wants an older pytest: an environment of its own, and half an hour. "make mutants ARGS=results" lists what survived
MUTANTS := .venv-mutants
mutants: $(MUTANTS)/.set-up
	$(MUTANTS)/bin/mutmut $(or $(ARGS),run)

$(MUTANTS)/.set-up: requirements/mutants.txt
	$(PYTHON) -m venv $(MUTANTS)
	$(MUTANTS)/bin/python -m pip install -qq --require-hashes -r requirements/mutants.txt
	@touch $@

image-test: setup
	@./tests/image/run $(ARGS)

# The sample is written from the model; a test holds them equal
config: setup
	$(BIN)/python -m pacslite.config.render >config/pacslite.toml

lock:
	uv pip compile -q pyproject.toml $(LOCK) -o requirements/runtime.txt
	uv pip compile -q pyproject.toml --extra codecs $(LOCK) -o requirements/codecs.txt
	uv pip compile -q pyproject.toml --extra codecs --group dev $(LOCK) -o requirements/dev.txt
	echo hatchling | uv pip compile -q - $(LOCK) -o requirements/build.txt
	printf '%s\n' mutmut 'pytest<9' pytest-asyncio pytest-timeout hypothesis | \
		uv pip compile -q pyproject.toml - $(LOCK) -o requirements/mutants.txt

LOCK := --generate-hashes --no-emit-index-url --no-emit-find-links --universal --python-version 3.11 --no-annotate --no-header

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
