# The two commands that always work on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
STAMP := $(VENV)/.installed

.PHONY: demo test check unit test-browser test-clients test-images test-outages format clean

demo: $(STAMP)
	$(BIN)/python -m examples.demo $(ARGS)

test: check unit

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(STAMP)
	$(BIN)/pytest -n 2 --dist loadgroup -m "not gpu and not browser and not images and not clients and not outages" $(ARGS)

test-browser: $(STAMP)
	$(BIN)/pytest -m browser $(ARGS)

test-clients: $(STAMP)
	$(BIN)/python -m tests.clients.environments
	$(BIN)/pytest -m clients $(ARGS)

test-outages: $(STAMP)
	$(BIN)/pytest -m outages $(ARGS)

test-images: $(STAMP)
	$(BIN)/pytest -m images $(ARGS)

# One command a benchmark: `make bench-pull`, `make bench-paper ARGS=--quick`.
bench-%: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[benchmarks]'
	$(BIN)/python -m benchmarks.$(subst -,_,$*) $(ARGS)

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info
