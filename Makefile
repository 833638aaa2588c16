# `make` prints the targets.
# the first Python of a tested version that can make environments; for another: make PYTHON=...
TESTED := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(or $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(TESTED)' 2>/dev/null && echo $$python && break; done), \
	$(error no Python 3.11, 3.12 or 3.13 with venv found; name one: make PYTHON=/path/to/python))
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS ?= constraints.txt
INSTALL := $(BIN)/python -m pip install --constraint $(CONSTRAINTS)
export PATH := $(CURDIR)/$(BIN):$(PATH)
# for two cores: slow tests wait for processes of DVC meanwhile, hence one more with them
PYTEST := OMP_NUM_THREADS=1 pytest --dist loadfile --no-loadscope-reorder

.PHONY: help install demo browse fast test format bench clean

help:  ## print these targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*##/\1\t/' | expand -t 10

demo: $(VENV)/installed-demo  ## run the whole graph on the built-in scenes, then print its scores
	@weakmask run
	@echo "here: make browse"

browse: $(VENV)/installed-demo  ## look at every step of every image in data/
	weakmask browse

fast: $(VENV)/installed-test  ## lint, types, and all tests that take a few seconds at most
	ruff check .
	ruff format --check .
	mypy
	$(PYTEST) -n 2 -m "not slow"

test: $(VENV)/installed-test  ## lint, types and all tests
	ruff check .
	ruff format --check .
	mypy
	$(PYTEST) -n 3

format: $(VENV)/installed-test  ## sort imports and format all code
	ruff check --fix .
	ruff format .

bench: $(VENV)/installed-test  ## measure speed, memory and disk against references
	python -m benchmarks --output benchmarks.md

clean:  ## delete artifacts and unfinished work; DVC's cache stays
	rm -rf data/* .work

install: $(VENV)/installed-demo  ## make .venv with all that the demo, the browser and the exports need

define NO_COMPILER
No C++ compiler or no Python.h: the dense CRF (pydensecrf2) is compiled when it is installed.
Install both (Debian, Ubuntu: apt-get install g++ python3-dev; macOS: xcode-select --install).
Or do without the CRF:

    python3 -m venv .venv && . .venv/bin/activate
    pip install --constraint constraints.txt --editable '.[demo,onnx]'

then set seeds.crf.iterations and predictions.crf.iterations in params.yaml to 0: dvc repro
endef
export NO_COMPILER

# The dense CRF (extra crf) is published as source alone, and its build pins a Cython that predates
# Python 3.13. It builds with a current Cython, installed first, and without pip's build isolation.
$(VENV)/installed-demo: EXTRAS := demo,crf,onnx
$(VENV)/installed-test: EXTRAS := demo,crf,onnx,test,bench
$(VENV)/installed-demo $(VENV)/installed-test: setup.cfg $(CONSTRAINTS) | $(VENV)
	$(INSTALL) --no-build-isolation --editable '.[$(EXTRAS)]'
	@touch $@ $(VENV)/installed-demo

$(VENV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "needs Python 3.11 or newer")'
	@$${CXX:-c++} --version >/dev/null 2>&1 && test -f "$$($(PYTHON) -c \
		'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" \
		|| { echo "$$NO_COMPILER" >&2; exit 1; }
	{ $(PYTHON) -m venv $(VENV) && $(INSTALL) --upgrade pip setuptools cython; } \
		|| { rm -rf $(VENV); exit 1; }
