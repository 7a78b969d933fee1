# `make` alone prints the targets. Set on the command line: DATASET ENCODER AGG HEAD SEED DEVICE.

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MEMFEAT := $(BIN)/memfeat

DATASET ?= demo
# The demo runs with the ImageNet encoder, whose weights a package ships; all else with the paper's.
ENCODER ?= $(if $(filter demo,$(DATASET)),efficientnet-lite0,ViT-L-14-336)
AGG ?= bigru
HEAD ?= mlp
SEED ?= 0
DEVICE ?= auto

MANIFEST := data_manifests/$(DATASET).csv
CACHE := cache/$(DATASET)/$(ENCODER)
RUN ?= runs/$(DATASET)-$(ENCODER)-$(AGG)-$(HEAD)
EXTRACT := $(if $(filter demo,$(DATASET)),pipelines/demo.toml,pipelines/extract.toml)
GRID := $(if $(filter demo,$(DATASET)),pipelines/demo.toml,pipelines/table1.toml)
GRID_RUN := $(if $(filter demo,$(DATASET)),runs/demo,runs/table1-$(DATASET))

.PHONY: help install demo clips extract train ablation report test bench-train clean

help: ## print this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1	/' | expand -t 20
	@echo
	@echo "  for example: make train DATASET=demo AGG=bigru HEAD=mlp SEED=0-4 DEVICE=cpu"

# --- set-up: one environment, made once, with the versions the tests passed with ---

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

install: $(VENV)/.installed ## set up memfeat in .venv

# --- the main job ---

demo: $(VENV)/.installed ## render the demo clips, extract, compare all systems, report, predict
	$(MEMFEAT) demo
	$(MEMFEAT) extract pipelines/demo.toml
	$(MEMFEAT) ablation pipelines/demo.toml
	$(MEMFEAT) report runs/demo
	$(MEMFEAT) predict runs/demo/cells/bigru+mlp data/demo/demo-120.mp4 --timeline runs/demo/timeline.png

clips: $(VENV)/.installed
	$(if $(filter demo,$(DATASET)),$(MEMFEAT) demo)

# Exit code 3 says that some videos failed, and were named; the others can be trained on.
extract: clips ## encode DATASET's videos with ENCODER into cache/
	$(MEMFEAT) extract $(EXTRACT) --manifest $(MANIFEST) --cache $(CACHE) --encoder $(ENCODER) \
	  --device $(DEVICE) || test $$? -eq 3

train: extract ## train AGG and HEAD on DATASET's cache with the paper's recipe
	$(MEMFEAT) train pipelines/train.toml --manifest $(MANIFEST) --cache $(CACHE) \
	  --aggregator $(AGG) --head $(HEAD) --seeds $(SEED) --device $(DEVICE) --run $(RUN)

ablation: extract ## compare systems: the demo's grid, or the paper's Table 1 on DATASET
	$(MEMFEAT) ablation $(GRID) --manifest $(MANIFEST) --cache-root cache/$(DATASET) --run $(GRID_RUN)

report: $(VENV)/.installed ## write the HTML page of the last ablation
	$(MEMFEAT) report $(GRID_RUN)

# --- development ---

test: $(VENV)/.installed-test ## run linters and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile

bench-train: $(VENV)/.installed-test ## time stage 2 against the naive way, side by side
	$(BIN)/python tests/benchmarks/bench_train.py

clean: ## delete caches of the tools; keep data, caches and runs
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
