# Every target works from a fresh checkout: what it needs is put into .venv first (once, see scripts/setup.sh).

PYTHON ?=
TORCH ?=
PIP_ARGS ?=
ARGS ?=
PYTEST_ARGS ?=
WORKERS ?= 2

PY := .venv/bin/python

.PHONY: help demo test lint setup clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s  %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  make demo ARGS="--help"                what the demo can do'
	@echo '  make test PYTEST_ARGS="-m slow"        the slow tests (-k pgd: those named so)'
	@echo '  make setup PYTHON=python3.12           another Python, 3.11 or newer'
	@echo '  make setup TORCH="<arguments of pip>"  another build of torch, installed first (README.md)'

demo: setup ## train, attack and judge a small AW-Net, and write its report
	@.venv/bin/awnet demo $(ARGS)

test: lint ## style, types, then the fast tests
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(WORKERS) $(PYTEST_ARGS)

lint: setup ## style and types only
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --quiet --check . || { echo 'mend it: $(PY) -m ruff format .'; exit 1; }
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(PY) -m pyright --pythonpath $(PY)

setup: ## make or refresh .venv
	@PYTHON='$(PYTHON)' TORCH='$(TORCH)' PIP_ARGS='$(PIP_ARGS)' sh scripts/setup.sh

clean: ## remove .venv and every cache; runs/ stays
	@rm -rf .venv build dist ./*.egg-info .pytest_cache .ruff_cache
	@find awnet tests -name __pycache__ -type d -prune -exec rm -rf {} +
