# Everything a developer does with PicoPay. `make` alone lists it.
# What a target needs, it installs itself into .venv/ (see .ci/environment).

MAKEFLAGS += --no-print-directory
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help up dev dev-operator test check images images-test cluster-up cluster-load cluster-down e2e bench bench-operator bench-cluster simulate lock clean

READY := .venv/.complete
RUN := .venv/bin/
CLUSTER := exec env PYTHONPATH=tests $(RUN)python -m support.cluster
ARGS ?=
BASE ?=

# Modules that write generated files; with --check they fail on a difference instead.
GENERATED_CHECKS := picopay_api.reference picopay_operator.reference

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  Options go into ARGS, as in: make up ARGS="--port 9000"'

up: $(READY) ## Start PicoPay with a database of its own, and print a first payment to try.
	@exec $(RUN)picopay up $(ARGS)

dev: $(READY) ## The same, started again whenever the code changes.
	@exec $(RUN)watchfiles --filter python --sigint-timeout 30 '$(RUN)picopay up $(ARGS)' api

dev-operator: $(READY) ## Run the operator against the cluster of your kubeconfig, again whenever the code changes.
	@exec env PICOPAY_LOG_FORMAT=text PICOPAY_OPERATOR_PORT=0 \
	  $(RUN)watchfiles --filter python --sigint-timeout 30 '$(RUN)python -m picopay_operator' operator

test: $(READY) ## Run every test, on real PostgreSQL servers.
	@exec $(RUN)pytest --numprocesses auto --maxprocesses 4 --dist worksteal $(ARGS)

check: $(READY) ## Check format, style, types, imports, generated files and the schema.
	$(RUN)ruff format --check .
	$(RUN)ruff check .
	$(RUN)mypy
	$(RUN)lint-imports
	$(RUN)hadolint Dockerfile.api Dockerfile.operator tests/support/cluster/postgres/Dockerfile
	@set -ex; for module in $(GENERATED_CHECKS); do $(RUN)python -m $$module --check; done
	PYTHONPATH=tests $(RUN)python -m support.schema_drift
	PYTHONPATH=tests $(RUN)python -m support.chart_files --check
	PYTHONPATH=tests $(RUN)python -m support.tour --check

images: $(READY) ## Make both container images (ARGS="--save FOLDER": archives, too; BASE=IMAGE: another base).
	@BASE="$(BASE)" .ci/images $(ARGS)

images-test: $(READY) ## Make both images, look into them, and run them (BASE=IMAGE: another base).
	@BASE="$(BASE)" exec $(RUN)pytest tests/images $(ARGS)

cluster-up: $(READY) ## Start Kubernetes with one node on this machine; needs root (ARGS="ARCHIVE… --with ADD-ON": with more).
	@$(CLUSTER) up $(ARGS)

cluster-load: $(READY) ## Give that node images, from archives (ARGS="ARCHIVE…").
	@$(CLUSTER) load $(ARGS)

cluster-down: $(READY) ## End that cluster; nothing of it is left.
	@$(CLUSTER) down

e2e: $(READY) ## Make the images, start a cluster, and have PicoPay run and break there (ARGS="-m smoke": a part).
	@BASE="$(BASE)" exec env PYTHONPATH=tests $(RUN)python -m support.e2e $(ARGS)

bench: $(READY) ## Measure payments per second, beside pgbench and a no-op (ARGS=--full: longer).
	@exec $(RUN)python tests/benchmarks/run.py $(ARGS)

bench-operator: $(READY) ## Measure the operator with 300 engines on a control plane (ARGS="--engines 30").
	@exec $(RUN)python tests/benchmarks/operator_bench.py $(ARGS)

bench-cluster: $(READY) ## Measure operator and engines on the cluster of your kubeconfig (ARGS=--quick).
	@exec $(RUN)python tests/benchmarks/cluster_bench.py $(ARGS)

simulate: $(READY) ## Run a bank whose processes are killed at random (ARGS="--minutes 10 --seed 7").
	@exec $(RUN)python tests/stress/simulate.py $(ARGS)

lock: $(READY) ## Resolve the dependencies anew into requirements.lock (ARGS=--upgrade for the newest).
	$(RUN)uv pip compile pyproject.toml --quiet --universal --generate-hashes --python-version 3.12 \
	  --all-extras --group dev --group image --no-emit-index-url --no-emit-find-links \
	  --custom-compile-command 'make lock' --output-file requirements.lock $(ARGS)

clean: ## Remove what the tools made; the data of `make up` stays.
	rm -rf .venv .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache dist
	find api operator tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.lock pyproject.toml .ci/environment
	@.ci/environment >&2
