# Each target sets up what it needs by itself, may be run at any time and is quick the second time.

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest -n 2 --dist loadfile

.PHONY: help run test test-full setup lint types bench conform docs clean
.NOTPARALLEL:

help: ## show the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 18

run: setup ## set up this machine, then show a guided tour with real containers
	@$(PYTHON) scripts/tour.py

test: setup ## every test in its short profile
	$(PYTEST)

test-full: setup ## every test at its full counts (much longer)
	STOWAGE_REQUIRED_TESTS='*' STOWAGE_TEST_PROFILE=full $(PYTEST) --timeout 3600

setup: ## the Debian packages, .venv and Stowage in it
	@scripts/setup.sh

lint: setup ## ruff: rules and format
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: setup ## mypy, strict
	$(PYTHON) -m mypy

bench: setup ## measure against rivals on this machine
	$(PYTHON) -m stowage_bench

conform: setup ## hold each storage driver against its definition; writes docs/conformance.md
	$(PYTHON) scripts/conformance.py

docs: setup ## write docs/reference anew from the code
	$(PYTHON) scripts/reference.py

clean: ## remove everything that the other targets made
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
