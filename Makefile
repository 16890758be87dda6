# Everything runs in an environment of its own, .venv, made on first use. Needs Python 3.11 or newer.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
REPORT := build/demo/report.html

# One worker per core. Set it to 0 for a single process (debuggers, timings).
WORKERS ?= auto
PYTEST  := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo test test-all fuzz check lint types format golden frameworks bench bench-quick numerics dist clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

demo: $(VENV)/.installed  ## formula to trained model in one HTML report
	@mkdir -p $(dir $(REPORT))
	$(BIN)/lossmith study cross_entropy --data digits --report $(REPORT)
	@echo
	@echo "The report: $(CURDIR)/$(REPORT)"

test: $(VENV)/.installed-test  ## the tests, and the examples in docstrings
	$(PYTEST)

test-all: $(VENV)/.installed-test  ## the same with the slow tests
	$(PYTEST) -m ""

check: lint types  ## lint, format, types, then the tests: what CI runs
	@$(MAKE) --no-print-directory test

lint: $(VENV)/.installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed-test
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed-test  ## mend what can be mended without thinking
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

golden: $(VENV)/.installed-test  ## write the golden files anew (refused in CI); then read the diff
	$(BIN)/python -m pytest --refresh-golden
	@git status --short tests/golden

fuzz: $(VENV)/.installed-test  ## ten minutes of formulas from a coverage-guided fuzzer (atheris), outside of CI
	@$(BIN)/python -m pip install --quiet 'atheris>=3'
	@mkdir -p build/fuzz/corpus
	cd build/fuzz && ../../$(BIN)/python ../../tests/fuzz/fuzz_reader.py -max_total_time=600 corpus

frameworks: $(VENV)/.installed-frameworks  ## add PyTorch, JAX and the boosters, about 1.6 GB

bench: $(VENV)/.installed-frameworks  ## speed beside PyTorch, JAX and others, into docs/performance.md; half an hour
	$(BIN)/python -m benchmarks --write docs/performance.md

bench-quick: $(VENV)/.installed-frameworks  ## two minutes of it; fails where a speed-up fell below 80 % of the recorded
	$(BIN)/python -m benchmarks --quick

numerics: $(VENV)/.installed-test  ## errors over a million rows of every loss, into docs/numerics.md; two hours
	$(BIN)/python -m accuracy --rows 1000000 --write docs/numerics.md

dist: $(VENV)/.installed  ## wheel and sdist, into dist/
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build

clean:  ## remove the environment and everything built
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "lossmith needs Python 3.11 or newer; name one with: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "$(PYTHON) cannot make environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# The package is installed in place, so a change of its sources needs no new installation, and a
# change of pyproject.toml brings one. Each stamp implies the ones before it.
INSTALL = @echo "Installing lossmith$(1) into $(VENV) …"; $(BIN)/python -m pip install --quiet --editable '.$(1)'

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(call INSTALL)
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(call INSTALL,[test])
	@touch $(VENV)/.installed $@

# The comma would split the argument of `call`.
WITH_FRAMEWORKS := [test,frameworks]
$(VENV)/.installed-frameworks: pyproject.toml | $(BIN)/python
	$(call INSTALL,$(WITH_FRAMEWORKS))
	@touch $(VENV)/.installed $(VENV)/.installed-test $@
