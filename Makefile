# Shardline's commands. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
UV := $(RUN)/uv
UV_VERSION := 0.13.9
DEMO := .run/demo
# Two for each of two cores: many tests wait, for a session to time out or a broker to come back.
TEST_WORKERS ?= 4
QUICK_WORKERS ?= 3
TESTS ?= tests
REPORT := .run/junit.xml
DIST ?= dist
# Without bytecode, every start of Python would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
.NOTPARALLEL:

.PHONY: help setup install check format quick test faults soak simulate demo train-demo bench bench-peers bench-assembly bench-filters bench-gateway stores up down docs site pictures dist sbom licences clean

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml uv.lock common/shardline_common/__init__.py
	@test -x $(RUN)/python || PYTHON=$(PYTHON) tools/setup_machine.sh python
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Shardline needs Python 3.11 or newer; '$(PYTHON)' is older. Try: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; exit 2; }
	@test -x $(RUN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "Python cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 2; }
	@test -x $(UV) || $(RUN)/python -m pip --version >/dev/null 2>&1 || $(RUN)/python -m ensurepip >/dev/null
	@test -x $(UV) || $(RUN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	UV_PROJECT_ENVIRONMENT=$(VENV) $(UV) sync --quiet --locked --inexact
	@touch $@

setup: ## Install what the tests need and this machine lacks; SHARDLINE_NO_INSTALL=1 only checks
	@PYTHON=$(PYTHON) tools/setup_machine.sh

install: $(VENV)/.installed ## Install what is locked into .venv

check: install ## Format, lint, types, imports
	$(RUN)/ruff format --check .
	$(RUN)/ruff check .
	$(RUN)/mypy
	$(RUN)/lint-imports

format: install ## Put the code into its format
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

quick: install ## Unit and contract tests in memory, without any server: under a minute
	SHARDLINE_NO_SERVERS=1 $(RUN)/pytest tests/unit tests/contract -m "not server and not slow" \
	  -p no:schemathesis --hypothesis-profile quick -n $(QUICK_WORKERS) --dist worksteal

test: setup install ## All tests, against real servers, in TEST_WORKERS processes
	$(RUN)/pytest $(TESTS) -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder \
	  --durations 25 --junitxml $(REPORT)

faults: install ## Only the tests that kill, stop and starve processes
	$(RUN)/pytest tests/faults

soak: install ## An hour of jobs under random faults; every figure must stay flat
	$(RUN)/python -m tests.faults.soak --minutes 60

simulate: install ## Thousands of schedules, each a function of its seed; how soon planted bugs are caught
	$(RUN)/python -m tests.simulation --schedules 2000
	$(RUN)/python -m tests.simulation --mutants --schedules 200

demo: install ## A sample of 20,000 documents becomes a verified dataset
	$(RUN)/python -m tools.demo $(DEMO)

train-demo: install ## A LoRA adapter from s3:// shards: killed, continued, and by two processes (fetches 5 GB)
	$(RUN)/python -m tools.train_demo

bench: install ## What each part costs, beside ceilings of the same run and what is aimed at
	$(RUN)/python -m tests.benchmarks

bench-peers: install ## The same rows by other tools, each in an environment of its own below .run/peers
	$(RUN)/python -m tests.benchmarks.peers

bench-assembly: install ## Land, sign, decide and assemble 10^5 and 10^6 documents, beside others (an hour)
	$(RUN)/python -m tests.benchmarks.assembly

bench-filters: install ## What each filter of the text costs, beside datatrove
	$(RUN)/python -m tests.benchmarks.filters

bench-gateway: install ## The gateway under strangers and 200 streams, and the first line of a search
	$(RUN)/python -m tests.benchmarks.gateway

stores: install ## The table of S3 servers in docs/stores-s3.md: fetch, start and measure each (half an hour)
	$(RUN)/python -m tools.stores

up: install ## Start Kafka and SeaweedFS on this machine, without Docker
	$(RUN)/python -m deploy.dev.services up

down: install ## Stop them
	$(RUN)/python -m deploy.dev.services down

docs: install ## Make the generated pages of docs/, and the dashboards, anew
	$(RUN)/python -m tools.reference
	$(RUN)/python -m deploy.dashboards

pictures: install ## Make the pictures of README.md: the demo in a terminal, the gateway's page
	$(RUN)/python -m tools.pictures

dist: install ## Wheel and sdist in DIST; the wheel is built from the sdist
	rm -f $(DIST)/shardline-*.whl $(DIST)/shardline-*.tar.gz
	$(UV) build --quiet --no-build-isolation --out-dir $(DIST)

sbom: install ## The bill of materials in DIST, from the lock, with licences
	$(RUN)/python -m deploy.release.sbom $(DIST)/shardline.cdx.json

licences: install ## The licences of all that is shipped; fails where one is not allowed
	$(RUN)/python -m deploy.release.licences

site: install ## Build docs/ as a site into .run/site; a dead link fails
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict --quiet

clean: ## Remove what the commands above made
	rm -rf $(VENV) .run dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
