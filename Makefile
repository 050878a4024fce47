# Works from a bare python3 with pip: every target first brings the virtual environment up to date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
CORES := $(shell nproc 2>/dev/null || echo 2)
export OMP_NUM_THREADS ?= $(CORES)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-fast coverage nightly lowest check docs format serve venv clean

demo: $(VENV)/.stamp  ## train, evaluate and recommend on MovieLens-100K with the real backbone
	$(BIN)/genrec demo --out runs/demo

# As many test processes as cores, each with one thread: several threads each are far slower.
SPREAD := -n $(CORES) --dist loadfile
test: $(VENV)/.stamp-dev  ## all tests, with the real backbone too; `make test ARGS=tests/test_trie.py`
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD) $(ARGS)

# What needs neither a download, a browser, a database server nor processes of its own.
FAST := -m "not e2e and not slow"

test-fast: $(VENV)/.stamp-dev  ## the tests that need nothing but Python, within 2 minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD) $(FAST) $(ARGS)

coverage: $(VENV)/.stamp-dev  ## what the fast tests run through; fails below the floor in pyproject.toml
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SPREAD) $(FAST) --cov --cov-report=term-missing:skip-covered $(ARGS)

nightly: $(VENV)/.stamp-dev  ## 10,000 files of generated garbage for the reader and of odd tables
	GENREC_EXAMPLES=10000 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/data/test_real_files.py -k "garbage or odd_tables" $(ARGS)

lowest: $(LOWEST)/.stamp  ## the fast tests, with the lowest versions that pyproject.toml allows
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest $(SPREAD) $(FAST) $(ARGS)

check: $(VENV)/.stamp-dev  ## style, types, which module may import which, and sizes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src
	$(BIN)/lint-imports
	$(BIN)/python scripts/checks/house.py

format: $(VENV)/.stamp-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.stamp-docs  ## the documentation site in site/, strictly
	$(BIN)/python scripts/docs/generate.py
	$(BIN)/zensical build --strict --clean
	$(BIN)/python scripts/docs/check.py site

RUN ?= runs/demo
serve: $(VENV)/.stamp-serve  ## the service on a trained run; `make serve RUN=runs/mine`
	$(BIN)/genrec serve $(RUN)

venv: $(VENV)/.stamp-dev

clean:
	rm -rf $(VENV) $(LOWEST) build dist site docs/reference .cache .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# The demo and the service need no developer tools, so each extra has a stamp of its own.
$(VENV)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.stamp-%: $(VENV)/.stamp
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$*]"
	touch $@

# httpx: what the test client of older FastAPI versions speaks with.
$(LOWEST)/.stamp: pyproject.toml constraints.txt scripts/checks/lowest.py
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python scripts/checks/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/constraints.txt --editable ".[test]" httpx
	touch $@
