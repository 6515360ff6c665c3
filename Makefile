# With Python 3.11 or newer, make and a compiler each target works alone: the first one installs into .venv.
# The package index is pip's own configuration. Where it offers CUDA builds of torch first and the machine has no GPU:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo

# Looked up only when the environment is made; `make PYTHON=/path/to/python3.12 ...` chooses another one.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Two processes of one thread do more work than one of two threads; a module's fixtures are made once.
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
DRILL_ARGS ?=

BIN := .venv/bin
STAMP := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help install demo test drills lint licences clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r t text; do printf '  make %-10s %s\n' "$$t" "$$text"; done

install: $(STAMP) ## install into .venv, with the exact versions of constraints.txt

demo: $(STAMP) ## from nothing to a trained and evaluated nano model
	$(BIN)/python -m scigpt.launch.demo

test: lint ## lint, types and tests (SCIGPT_REALDATA=DIR adds the tests on real files)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS)

drills: $(STAMP) ## the long proofs: kills, resumes, timings
	$(BIN)/python -m pytest -m drill --timeout 3600 $(DRILL_ARGS)

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/mypy

licences: $(STAMP) ## licences of every dependency; fails on GPL and AGPL
	$(BIN)/python .ci/licences.py

clean: ## remove the environment, builds and caches; runs and corpora stay
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch and setuptools first: the build of SciGPT itself then uses the pinned setuptools too.
$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo 'SciGPT needs Python 3.11 or newer; install it or name it: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --constraint constraints.txt torch setuptools
	$(BIN)/python -m pip install --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@
