# `make` prints the targets. PYTHON may name any interpreter from 3.11 to 3.13.
PYTHON ?= $(firstword $(foreach v,3.11 3.12 3.13,$(shell command -v python$(v))) python3)
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
PYTEST := OMP_NUM_THREADS=1 pytest -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: help demo browse fast test format bench clean

help:  ## print these targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*##/\1\t/' | expand -t 10

demo: $(VENV)/installed-demo  ## run the whole graph on the built-in scenes, then print its scores
	dvc repro
	@weakmask scores

browse: $(VENV)/installed-browse  ## look at every step of every image in data/
	weakmask browse

fast: $(VENV)/installed-test  ## lint, types, and all tests that take a few seconds at most
	ruff check .
	ruff format --check .
	mypy
	$(PYTEST) -m "not slow"

test: $(VENV)/installed-test  ## lint, types and all tests
	ruff check .
	ruff format --check .
	mypy
	$(PYTEST)

format: $(VENV)/installed-test  ## sort imports and format all code
	ruff check --fix .
	ruff format .

bench: $(VENV)/installed-test  ## measure speed, memory and disk against references
	python -m benchmarks --output benchmarks.md

clean:  ## delete artifacts and unfinished work; DVC's cache stays
	rm -rf data/* .work

$(VENV)/installed-demo: setup.cfg | $(VENV)
	pip install --editable '.[demo]'
	@touch $@

$(VENV)/installed-browse: setup.cfg | $(VENV)
	pip install --editable '.[demo,browse]'
	@touch $@ $(VENV)/installed-demo

$(VENV)/installed-test: setup.cfg | $(VENV)
	pip install --editable '.[demo,test,bench]'
	@touch $@ $(VENV)/installed-demo $(VENV)/installed-browse

$(VENV):
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), "weakmask needs Python 3.11 to 3.13; set PYTHON"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --upgrade pip
