# make train | make test: from a fresh clone, with nothing but Python and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: train test lint suite fuzz coverage docs release-check clean

train: $(STAMP)  ## the main job: train on the embedded molecules, no download
	$(BIN)/plstm-graph train --out runs/nav17 --overwrite

test: lint suite  ## everything that has to be green

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

suite: $(STAMP)
	$(BIN)/pytest -n auto --dist worksteal

fuzz: $(STAMP)  ## 10,000 random inputs, where the suite has 200; records the run
	$(BIN)/python benchmarks/reliability.py fuzz --cases 10000

coverage: $(STAMP)  ## of the core; loops that numba compiled are out of sight, so here they stay Python
	NUMBA_DISABLE_JIT=1 $(BIN)/pytest -n auto tests/line_dag tests/ops $(wildcard tests/test_[got]*.py) --cov --cov-report=term-missing

docs: $(STAMP)  ## pages in site/; a broken link fails
	$(BIN)/mkdocs build --strict

release-check:  ## build, check the metadata, install the wheel with core dependencies alone, run it outside the checkout
	rm -rf dist $(VENV)-release
	$(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/python -m pip install --quiet build twine
	$(VENV)-release/bin/python -m build --outdir dist .
	$(VENV)-release/bin/python -m twine check --strict dist/*
	$(PYTHON) -m venv --clear $(VENV)-release
	$(VENV)-release/bin/python -m pip install --quiet -c constraints.txt dist/*.whl
	cd $(VENV)-release && bin/python -I $(CURDIR)/tests/smoke.py

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-release dist runs site .pytest_cache .mypy_cache .ruff_cache
