# Everything starts here, from a fresh clone:  make demo  ·  make test
# `make help` lists the rest.

PY := .venv/bin/python
NODE := .venv/bin/ich-node
MODEL := models/ich-irv2
PIN := --python-version 3.11 --quiet --no-header --no-emit-index-url --no-annotate
# Files in their order, the long ones of tests/acceptance first: at the end no process waits for another. A process that
# dies is not replaced: its tests would be waited for without end (pytest-xdist 3.8).
PARALLEL := --numprocesses auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder
DATA ?=
HOURS ?= 1
DESTDIR ?=
PREFIX ?= /opt/ich-node
MINUTES ?= 15

.PHONY: help setup model demo test test-all torture check sbom audit format bench bench-all soak fuzz docs requirements install clean

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
	@$(PY) -m pytest -q $(PARALLEL) -o faulthandler_timeout=1800

torture: setup  ## kill -9 and power cuts, by the thousand: KILLS= CUTS= REAL= JOBS= SEED=
	@$(PY) -m tests.torture $(foreach name,KILLS CUTS REAL JOBS SEED,$(if $($(name)),--$(shell echo $(name) | tr A-Z a-z) $($(name))))

check: setup  ## lint, types, import contracts, known weaknesses of the parts where their database can be reached
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@.venv/bin/lint-imports
	@$(PY) -m release.audit

sbom: setup  ## build the wheel and its parts list (CycloneDX): dist/ich-node.cdx.json
	@$(PY) -m release.sbom

audit: setup  ## look for known weaknesses of the parts
	@$(PY) -m release.audit

format: setup  ## format the code
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

bench: model  ## each step beside the best alternative and the machine's limit, as one table and as JSON in var/bench
	@$(PY) -m benchmarks steps

bench-all: model  ## every benchmark, as tables; half an hour
	@$(PY) -m benchmarks

soak: setup  ## a whole node under 20 images a second for HOURS (1), with its memory, files and losses
	@$(PY) -m benchmarks.soak --hours $(HOURS)

fuzz: setup  ## fuzz what reads bytes of others, for MINUTES=15, as a table; what was found lies in var/fuzz
	@$(PY) -m tests.fuzz --minutes $(MINUTES)

docs: setup  ## write the conformance statement's tables anew from the code
	@$(PY) -m docs.generate

requirements:  ## pin the newest versions that fit pyproject.toml: for a site, and with the tools of development
	uv pip compile pyproject.toml --extra dev --extra train --extra scale --extra s3 --upgrade $(PIN) -o requirements-dev.txt
	uv pip compile pyproject.toml --constraint requirements-dev.txt $(PIN) -o requirements.txt

install:  ## as root: user, folders, configuration and systemd units (DESTDIR=folder to look at it first)
	@scripts/install "$(DESTDIR)" "$(PREFIX)"

clean:  ## remove what the targets made; the model stays, and the state of a node run from here (var/)
	rm -rf .venv var/demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
