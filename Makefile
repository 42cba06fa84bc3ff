# Everything starts here, from a fresh clone:  make demo  ·  make test
# `make help` lists the rest.

PY := .venv/bin/python
NODE := .venv/bin/ich-node
MODEL := models/ich-irv2
PIN := --python-version 3.11 --quiet --no-header --no-emit-index-url --no-annotate
PARALLEL := --numprocesses auto --maxprocesses 4 --dist loadfile
DATA ?=
DESTDIR ?=
PREFIX ?= /opt/ich-node
MINUTES ?= 15

.PHONY: help setup model demo test test-all check format bench fuzz docs requirements install clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup:  ## make .venv with everything in it, install the system programs
	@scripts/setup

model: setup  ## make an untrained bundle where the one that comes with the program was removed
	@test -f $(MODEL)/manifest.json || $(NODE) model init-untrained $(MODEL)

demo: model  ## node and small PACS, a synthetic head CT (or DATA=folder), the result
	@$(NODE) demo $(if $(DATA),--data "$(DATA)")

test: setup  ## the test suite
	@$(PY) -m pytest -q $(PARALLEL) -m "not slow"

test-all: setup model  ## the test suite with what takes long
	@$(PY) -m pytest -q $(PARALLEL)

check: setup  ## lint, types, import contracts
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports

format: setup  ## format the code
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

bench: model  ## the benchmarks, as tables
	@$(PY) -m benchmarks

fuzz: setup  ## fuzz what reads bytes of others, for MINUTES=15, as a table; what was found lies in var/fuzz
	@$(PY) -m tests.fuzz --minutes $(MINUTES)

docs: setup  ## write the conformance statement's tables anew from the code
	@$(PY) -m docs.generate

requirements:  ## pin the newest versions that fit pyproject.toml: for a site, and with the tools of development
	uv pip compile pyproject.toml --extra dev --extra train --upgrade $(PIN) -o requirements-dev.txt
	uv pip compile pyproject.toml --constraint requirements-dev.txt $(PIN) -o requirements.txt

install:  ## as root: user, folders, configuration and systemd units (DESTDIR=folder to look at it first)
	@scripts/install "$(DESTDIR)" "$(PREFIX)"

clean:  ## remove what the targets made; the model stays, and the state of a node run from here (var/)
	rm -rf .venv var/demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
