# Two commands do everything: `make demo` and `make test`. Both install into .venv first; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PLUGINS := $(wildcard plugins/*)

.PHONY: demo test lint clean

demo: $(STAMP)
	$(BIN)/infoplace demo --out demo

test: $(STAMP) lint
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@for plugin in $(PLUGINS); do echo "mypy $$plugin"; (cd $$plugin && $(abspath $(BIN))/mypy) || exit 1; done

$(STAMP): pyproject.toml $(wildcard plugins/*/pyproject.toml)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "infoplace needs Python 3.11 or newer; run: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]' $(PLUGINS:%=--editable ./%)
	touch $@

clean:
	rm -rf $(VENV) demo runs
