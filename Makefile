# A fresh machine needs Python 3.11, git, make, a compiler and package access; everything else is installed here.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
RUN_READY := $(VENV)/.run-ready
DEV_READY := $(VENV)/.dev-ready

.DEFAULT_GOAL := help
.PHONY: help demo demo-real test check bench bench-client wheel schema lock clean test-slurm test-engines test-sglang test-dynamo test-gpu test-browser test-fuzz test-parsers

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: $(RUN_READY) ## a sweep on the embedded engine, ending in the comparison table and a report
	$(BIN)/mtpbench run sweeps/demo.yaml

demo-real: $(RUN_READY) ## the same on real vLLM on this machine's CPU (installs it: 2.0 GB outside the tree)
	$(BIN)/python tests/engines/setup/prepare.py vllm -- $(BIN)/mtpbench run sweeps/demo-real.yaml

test: $(DEV_READY) ## the fast tests
	$(BIN)/python -m pytest -n 4 --dist worksteal

test-fuzz: $(DEV_READY) ## two CPU-minutes of odd input of every kind, by a seed that it prints; SEED=… repeats it
	$(BIN)/python -m pytest -n 0 $(if $(SEED),--hypothesis-seed=$(SEED)) tests/fuzz

check: $(DEV_READY) ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --follow-imports=silent benchmarks/*.py

bench: $(DEV_READY) ## what must be fast, each beside the straightforward way (bench-client: the load client)
	$(BIN)/python benchmarks/virtual_clock.py
	$(BIN)/python benchmarks/acceptance_shapes.py
	$(BIN)/python benchmarks/prompts.py
	$(BIN)/python benchmarks/chunk_store.py
	$(BIN)/python benchmarks/recompute.py
	$(BIN)/python benchmarks/load_points.py
	$(BIN)/python benchmarks/status_points.py
	$(BIN)/python benchmarks/compare_points.py
	$(BIN)/python benchmarks/power_sampler.py
	$(BIN)/python benchmarks/embedded_server.py
	$(BIN)/python benchmarks/agreement.py
	$(BIN)/python benchmarks/coverage.py --quick

bench-client: $(DEV_READY) ## the load client beside vLLM's, AIPerf, GuideLLM and aiohttp (installs them outside the tree)
	$(BIN)/python benchmarks/client/run.py --markdown benchmarks/client/.build/table.md --json benchmarks/client/.build/runs.json --plot benchmarks/client/.build/plot.svg

wheel: $(DEV_READY) ## build the wheel into dist/
	rm -rf dist
	$(BIN)/python -m hatchling build -t wheel

schema: $(RUN_READY) ## write the JSON Schema of sweep files for editors
	$(BIN)/mtpbench schema > sweeps/sweep.schema.json

lock: ## pin the newest dependencies anew, without any address
	$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install -q uv
	cd requirements && for name in run dev; do ../$(VENV)/lock/bin/uv pip compile -q --upgrade \
	  --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url \
	  --no-emit-find-links -o $$name.lock $$name.in; done

clean: ## remove what was built; results/ stays
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Tiers with real servers. Each one arrives with the part of the product that it tests.
test-engines: $(DEV_READY) ## tests on real vLLM and llama.cpp, set up from nothing outside the tree
	$(BIN)/python tests/engines/setup/prepare.py vllm llamacpp -- $(BIN)/python -m pytest tests/engines

test-sglang: $(DEV_READY) ## tests on real SGLang on the CPU, set up from nothing outside the tree (3.6 GB)
	$(BIN)/python tests/engines/setup/prepare.py sglang -- $(BIN)/python -m pytest tests/sglang

test-dynamo: $(DEV_READY) ## tests on Dynamo's frontend: its mocker, real vLLM and SGLang workers (5.2 GB outside the tree)
	$(BIN)/python tests/dynamo/prepare.py -- $(BIN)/python -m pytest tests/dynamo

test-gpu: $(DEV_READY) ## measure vLLM on this machine's NVIDIA GPU; says NOT RUN where there is none
	$(BIN)/python tests/gpu/measure_vllm.py

test-parsers: $(DEV_READY) ## every command line to the parsers of engines' releases, unpacked outside the tree
	$(BIN)/python tests/parsers/prepare.py -- $(BIN)/python -m pytest tests/parsers

test-slurm: $(DEV_READY) ## tests on a private real Slurm; installs Debian's packages, says NOT RUN where it cannot
	$(BIN)/python tests/slurm/prepare.py -- $(BIN)/python -m pytest tests/slurm

test-browser: $(DEV_READY) ## tests of the report in Debian's Chromium; installs it, says NOT RUN where it cannot
	$(BIN)/python tests/browser/prepare.py -- $(BIN)/python -m pytest tests/browser

$(RUN_READY): requirements/run.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
	@echo "setting up $(VENV): about a minute"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/run.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(DEV_READY): requirements/dev.lock $(RUN_READY)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.lock
	touch $@
