# Two commands do everything: `make demo` and `make test`. They make their own environment.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000
SCENARIO ?= tour

.PHONY: demo test check format clean

demo: $(VENV)/.demo ## the whole product on real work; REDIS_URL=redis://... uses your own server
	@exec $(BIN)/python -m demo --port $(PORT) --scenario $(SCENARIO) $(if $(REDIS_URL),--redis-url $(REDIS_URL))

test: check ## everything CI runs: format, lint, types, import contracts, all tests
	$(BIN)/python -m pytest $(PYTEST)

check: $(VENV)/.dev ## the quick part: format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .demo build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Tickbird needs Python 3.11 or later, this is %d.%d" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "Installing the demo into $(VENV) (once) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.demo
