# Every target sets itself up from a bare clone: Python 3.11 or newer, make and a C compiler are all it needs.
#   make demo      train a small network, write its report to maxaffine-demo/index.html
#   make test      the whole suite, with README, docs and docstrings
#   make check     ruff, pyright, the architecture test          make docs    the pages, into docs/_build/html
#   make bench     every script in benchmarks/                   make nightly the suite with many more random networks
#   make reproduce the page on experiments: hours, or minutes with ARGS=--quick (data in MAXAFFINE_ASSETS, or ARGS="--data-root ...")
#   make setup     only the environment (.venv)                  make clean   what the other targets wrote
# PYTHON=... picks the interpreter. PIP_INDEX_URL, PIP_EXTRA_INDEX_URL ... are pip's own and are obeyed.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
DEPENDENCIES := pyproject.toml constraints.txt
TRAINED := $(if $(MAXAFFINE_ASSETS),planes resnet_plane partition_workers near_duplicates)  # benchmarks of trained networks
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
ARGS ?=

.PHONY: demo test nightly check format docs bench reproduce setup clean help

help:
	@sed -n '2,8s/^# *//p' Makefile

demo: .venv/ready
	$(BIN)/maxaffine demo --out maxaffine-demo

test: .venv/ready
	$(PYTEST) $(ARGS)

nightly: .venv/ready
	$(PYTEST) -m "" --hypothesis-profile=nightly $(ARGS)

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q -p no:cacheprovider tests/test_architecture.py

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/ready-docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: .venv/ready
	for script in affine_map memory jvp codes encoding margin import_time lines penalties template_statistics code_index $(TRAINED); do $(BIN)/python benchmarks/$$script.py $(ARGS) || exit 1; done

reproduce: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/python experiments/reproduce.py $(ARGS)

setup: .venv/ready

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "maxaffine needs Python 3.11 or newer and found none: install one, or say make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }

.venv/ready: .venv/bin/python $(DEPENDENCIES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

.venv/ready-docs: .venv/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs]"
	@touch $@

clean:
	rm -rf .venv docs/_build docs/gallery docs/sg_execution_times.rst maxaffine-demo build .pytest_cache .ruff_cache .hypothesis
