PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo test bench clean

demo: $(VENV)/installed-demo  ## the whole graph on the built-in scenes, then its scores
	dvc repro
	@weakmask scores

test: $(VENV)/installed-test  ## lint, types and all tests
	ruff check .
	ruff format --check .
	mypy
	OMP_NUM_THREADS=1 pytest -n 3 --dist loadfile --no-loadscope-reorder

bench: $(VENV)/installed-test  ## speed and memory of every part
	python -m benchmarks --output benchmarks/RESULTS.new.md

$(VENV)/installed-demo: setup.cfg | $(VENV)
	pip install --editable '.[demo]'
	@touch $@

$(VENV)/installed-test: setup.cfg | $(VENV)
	pip install --editable '.[demo,test,bench]'
	@touch $@ $(VENV)/installed-demo

$(VENV):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --upgrade pip

clean:  ## forget artifacts and unfinished work (DVC's cache stays)
	rm -rf data/* .work
