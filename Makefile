# ciaosfs: `make` lists what there is to make.

STORE ?=
MOUNT ?=
ROUNDS ?= 3
HOURS ?= 1
MINUTES ?=
ARGS ?=

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest
export STORE MOUNT

.DEFAULT_GOAL := help
.PHONY: help up down setup setup-run man test test-model test-crash test-mount tidy lint fmt bench soak ci dist clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: setup-run ## set up, make a store if there is none, mount it (STORE=DIR MOUNT=DIR)
	@tools/up.sh up

down: ## unmount (MOUNT=DIR)
	@tools/up.sh down

setup: ## system packages, .venv and all that developers need
	@tools/setup.sh dev

setup-run:
	@tools/setup.sh run

test: setup ## every test, on a real mount too (ARGS="-k name" to choose)
	$(PYTEST) -n auto --maxprocesses 4 --dist worksteal $(ARGS)

test-model: setup ## random operations against a simple model
	$(PYTEST) tests/model $(ARGS)

test-crash: setup ## every crash window
	$(PYTEST) tests/crash $(ARGS)

test-mount: setup ## system calls, programs, drives and kills on a real mount
	$(PYTEST) tests/mount $(ARGS)

tidy: setup ## the rules of the repository
	$(PYTHON) -m tools.tidy

lint: setup ## ruff and mypy
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy

fmt: setup ## format the sources
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

man: setup ## the manual pages, in packaging/man (`man -l packaging/man/ciaosfs.1`)
	$(PYTHON) -m tools.genman

bench: setup ## compare with a plain directory and an in-memory file system (ROUNDS=3 ARGS="--only create")
	$(PYTHON) -m tools.bench_mount --rounds $(ROUNDS) --markdown $(ARGS)

soak: setup ## the simulator with new seeds, model, contract, crash and mount tests and kills, over and over (HOURS=1 or MINUTES=30)
	HOURS=$(HOURS) MINUTES=$(MINUTES) tools/soak.sh

ci: lint test ## what has to hold before a change is taken

dist: man ## a wheel and a source archive in dist/
	mkdir -p dist
	$(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir dist .
	git archive --format=tar.gz --prefix=ciaosfs/ --output=dist/ciaosfs-source.tar.gz HEAD

clean: ## remove what was built (no store is touched)
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
