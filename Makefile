# make demo   set up a virtual environment and run the demo; Ctrl-C stops it
# make test   set up, then lint, types and tests
# make conformance   all cases of Autobahn|Testsuite, for each codec, as server and as client (half an hour)
# Nothing but Python 3.11+ is needed; a C compiler, when there is one, builds the C core.

PYTHON ?= python3
VENV ?= .venv

BIN := $(VENV)/bin
RUN := $(BIN)/python
PIP := $(RUN) -m pip --disable-pip-version-check --quiet
# A build that fails falls back to a pure install: say which one it was.
REPORT := $(RUN) -c 'from asyncmg.core import status; s = status(); print("C core:", s.path or "none,", s.reason)'
# What an editable install was made from: it is made anew when one of these changes.
SOURCES := pyproject.toml asyncmg/core/CMakeLists.txt $(wildcard asyncmg/core/*.[ch])

.PHONY: demo test lint conformance venv venv-test bench wheel clean

demo: venv
	@$(RUN) -m asyncmg demo

test: lint
	$(RUN) -m pytest $(PYTEST_ARGS)

lint: venv-test
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

conformance: venv-test
	$(RUN) tests/conformance/autobahn.py --cases full --codec native,portable,wsproto --jobs 2 $(CONFORMANCE_ARGS)

bench: $(VENV)/.bench
	for program in benchmarks/[a-z]*.py; do $(RUN) $$program || exit 1; done

wheel: $(RUN)
	$(PIP) wheel --no-deps --wheel-dir dist .

venv: $(VENV)/.installed
venv-test: $(VENV)/.test

$(RUN):
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(SOURCES) | $(RUN)
	@echo "installing asyncmg into $(VENV) ..."
	@$(PIP) install --editable .
	@$(REPORT)
	@touch $@

$(VENV)/.test: $(SOURCES) | $(RUN)
	@echo "installing asyncmg and what its tests need into $(VENV) ..."
	@$(PIP) install --editable '.[test]'
	@$(REPORT)
	@touch $(VENV)/.installed $@

$(VENV)/.bench: $(SOURCES) | $(RUN)
	@echo "installing asyncmg and the peers of the benchmarks into $(VENV) ..."
	@$(PIP) install --editable '.[bench]'
	@$(REPORT)
	@touch $(VENV)/.installed $@

clean:
	rm -rf .venv* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
