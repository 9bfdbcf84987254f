# What a newcomer runs. Each target prepares what it needs; .ci/run is what CI runs.
PYTHON := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long bench bench-quick bench-micro bench-edge lint lint-style lint-layout lint-types lint-imports format lock clean

help: ## show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## programs of the machine, the virtual environment, Kafka (repeatable)
	.ci/setup

demo: ## the whole system on this machine, with planted faults and a report
	.ci/setup --demo
	.venv/bin/verifier demo

test: setup ## every test but the long ones, in one run
	$(PYTHON) -m pytest

test-long: setup ## kills and bounds at scale, and 50,000 simulated seeds (an hour or so)
	$(PYTHON) -m pytest -m long
	$(PYTHON) -m tests.simulation --seeds 50000

bench: ## what the verifier costs beside its peers, at full size (half an hour or so): bench/results/latest.json
	.ci/setup --bench
	$(PYTHON) -m bench

bench-quick: ## the same at a small size, under three minutes: bench/results/quick.json
	.ci/setup --bench
	$(PYTHON) -m bench --quick

bench-micro: ## compare, join step and codec by themselves
	.ci/setup --bench
	.venv-bench/bin/python -m bench.micro.compare_bodies --out bench/results/micro-compare.json
	$(PYTHON) -m bench.micro.engine_feed

bench-edge: ## what the mirror and the capture cost a user: bench/results/edge.json
	.ci/setup --bench
	$(PYTHON) -m bench.edge

lint: lint-style lint-layout lint-types lint-imports ## style, types and the direction of dependencies

lint-style:
	.venv/bin/ruff check --output-format concise .

lint-layout:
	.venv/bin/ruff format --check --output-format concise .

lint-types:
	.venv/bin/mypy

lint-imports:
	.venv/bin/lint-imports --no-cache --no-logo

format: ## lay the code out and mend what can be mended by itself
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# What is pinned stays pinned as long as pyproject.toml allows it; add UPGRADE=--upgrade to move on.
LOCK := .venv/bin/uv pip compile pyproject.toml --universal --generate-hashes --no-emit-index-url --no-header \
	--no-annotate --quiet $(UPGRADE)

lock: ## pin the dependencies of pyproject.toml, with their hashes
	$(LOCK) --extra demo --output-file requirements.lock
	$(LOCK) --extra demo --group dev --output-file requirements-dev.lock
	$(subst compile pyproject.toml,compile --group bench,$(LOCK)) --output-file requirements-bench.lock
	$(subst compile pyproject.toml,compile --group deployment,$(LOCK)) --output-file requirements-deployment.lock

clean: ## remove what was built or cached here (not .venv)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find verifier tests -name __pycache__ -type d -prune -exec rm -rf {} +
