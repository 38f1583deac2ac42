# `make` lists the targets. Another interpreter: `make test PYTHON=python3.12`.
PYTHON ?= python3
BIN := .venv/bin

# Named by version, so that another PYTHON makes a new environment. It is written last:
# without it an environment is half made, and is made again from nothing.
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
READY := .venv/ready-$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help quickstart reproduce-energy benchmark benchmark-peers test test-all format clean clean-all

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@echo "Installing into .venv (takes a minute or more) ..."
	@test -e $@ || $(PYTHON) -m venv --clear .venv
	@rm -f $@
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[dev]'
	@touch $@

quickstart: $(READY) ## one relay cycle on real images, in minutes
	@$(BIN)/python scripts/train.py --config configs/quickstart.py

reproduce-energy: $(READY) ## the published energy tables, in seconds
	@$(BIN)/python -m papers_repro.energy.reproduce

benchmark-peers: $(READY) ## install what the benchmark compares with, about 3 GB
	@$(BIN)/python -m benchmarks.peers install

benchmark: $(READY) ## time us beside our peers, 40 minutes; wants a quiet machine
	@$(BIN)/python -m benchmarks.run

test: $(READY) ## lint, format check, types and the fast tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pytest -n 2 --dist loadfile

test-all: $(READY) ## every test, with the slow ones and those that fetch data
	@$(BIN)/pytest -n 2 --dist loadfile -m ""

format: $(READY) ## apply the formatter and the safe lint fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove caches and the benchmark's peers; keeps .venv and runs
	rm -rf .cache .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find ecogen_jax configs scripts tests benchmarks papers_repro -name __pycache__ -type d -prune -exec rm -rf {} +

clean-all: clean ## remove .venv too
	rm -rf .venv
