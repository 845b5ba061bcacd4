# Each target sets the environment up first; where that is done it costs a moment.
# A GPU machine takes the CUDA lock by itself; SETUP="--cpu" or SETUP="--cuda" decides it by hand.
PYTHON ?= python3
SETUP ?=
PARAMS ?= params/cpu.yaml
LAB ?=
BIN := .venv/bin

# A lock holds for every Python that setup_env.py takes. Versions stay as they are unless UPGRADE moves them.
# uv reads none of pip's settings: UV_DEFAULT_INDEX names another registry, TORCH another source of torch's CPU build.
UPGRADE ?=
TORCH ?= --find-links https://download.pytorch.org/whl/cpu/torch/
LOCK = $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-header --quiet $(UPGRADE)

# Tests are dealt out to as many processes as there are cores, eight at most; one that has none left takes of another's.
SPREAD := -n logical --maxprocesses 8 --dist worksteal
# A process has a core, so threads of its own would stand in the other processes' way.
ONE_THREAD := OMP_NUM_THREADS=1
# Tests must not reach for a hub, and stray user settings must not change what they see. Containers often keep Python from
# storing what it compiles; then each of the many processes that tests start compiles torch anew, which is half its start.
OFFLINE := HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=

.DEFAULT_GOAL := help
.PHONY: help setup lab reproduce study test lint types unit live notebooks bench doctor lock clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /\1\t/' | awk -F'\t' '{printf "  make %-11s %s\n", $$1, $$2}'

setup:  ## make .venv from the locks; done before, it does nothing
	@$(PYTHON) setup_env.py $(SETUP)

lab: setup  ## JupyterLab on notebooks/, in the browser or at the address it prints (LAB="--no-browser --port=8900" is passed on)
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB)

reproduce: setup  ## run the whole method live (PARAMS=params/cpu.yaml), ends with a table and a report
	$(BIN)/crescent run $(PARAMS)

study: setup  ## fill every claim: the sweeps and rounds of params/study.yaml (some hours on two cores; goes on after a cut)
	$(BIN)/crescent study

test: lint types unit live notebooks  ## everything that has to be green

lint: setup  ## ruff
	$(BIN)/ruff check .

types: setup  ## mypy, strict
	$(BIN)/mypy

unit: setup  ## pytest without a model run, with the replay of the reference run
	$(OFFLINE) $(ONE_THREAD) $(BIN)/python -m pytest -p no:nbval $(SPREAD)

live: setup  ## all six notebooks on the real small model, a few completions a stage
	$(OFFLINE) $(BIN)/python -m pytest -p no:nbval -m "live and not slow and not gpu"

notebooks: setup  ## the committed notebooks print what is committed
	$(OFFLINE) $(ONE_THREAD) $(BIN)/python -m pytest --nbval-lax $(SPREAD:worksteal=loadfile) notebooks

bench: setup  ## speed over the plain alternatives, one table (12 minutes on two idle cores)
	$(OFFLINE) $(BIN)/python tests/benchmarks/run.py

doctor: setup  ## what this machine can run
	$(BIN)/crescent doctor

lock: setup  ## make the locks and the files for conda again from pyproject.toml (UPGRADE="--upgrade-package NAME" moves versions)
	$(LOCK) --group cpu --override requirements/cpu.overrides.txt --output-file requirements/cpu.lock.txt $(TORCH)
	$(LOCK) --group cuda --output-file requirements/cuda.lock.txt
	$(BIN)/python requirements/make_conda.py

clean:  ## remove caches and .venv; outputs/ stays
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
