# `make` alone prints the targets. Set on the command line: DATASET ENCODER AGG HEAD SEED DEVICE WEIGHTS.

.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MEMFEAT := $(BIN)/memfeat

DATASET ?= demo
DEMO := $(filter demo demo-b,$(DATASET))
# The demos run with the ImageNet encoder, whose weights a package ships; all else with the paper's.
ENCODER ?= $(if $(DEMO),efficientnet-lite0,ViT-L-14-336)
AGG ?= bigru
HEAD ?= mlp
SEED ?= 0
DEVICE ?= auto

MANIFEST := data_manifests/$(DATASET).csv
CACHE := cache/$(DATASET)/$(ENCODER)
RUN ?= runs/$(DATASET)-$(ENCODER)-$(AGG)-$(HEAD)
EXTRACT := $(if $(DEMO),pipelines/demo.toml,pipelines/extract.toml)
GRID := $(if $(DEMO),pipelines/demo.toml,pipelines/table1.toml)
GRID_RUN := $(if $(DEMO),runs/$(DATASET),runs/table1-$(DATASET))

.PHONY: help install demo clips extract finetune train ablation table2 report \
  table1-smoke demo-table2 demo-sampler test types tests test-extras test-gpu browser test-browser \
  picture soak docs bench-train bench-extract bench-gpu bench-busy bench-report clean

help: ## print this help
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1	/' | expand -t 20
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

$(VENV)/.installed-bench: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

install: $(VENV)/.installed ## set up memfeat in .venv

# --- the main job ---

demo: $(VENV)/.installed ## render the demo clips, extract, compare all systems, report, predict
	$(MEMFEAT) demo
	$(MEMFEAT) extract pipelines/demo.toml
	$(MEMFEAT) ablation pipelines/demo.toml
	$(MEMFEAT) report runs/demo
	$(MEMFEAT) predict runs/demo/cells/bigru+mlp data/demo/demo-0300.mp4 --timeline runs/demo/timeline.png

clips: $(VENV)/.installed
	$(if $(DEMO),$(MEMFEAT) demo --name $(DATASET))

# Exit code 3 says that some videos failed, and were named; the others can be trained on.
extract: clips ## encode DATASET's videos with ENCODER into cache/
	$(MEMFEAT) extract $(EXTRACT) --manifest $(MANIFEST) --cache $(CACHE) --encoder $(ENCODER) \
	  --device $(DEVICE) || test $$? -eq 3

train: extract ## train AGG and HEAD on DATASET's cache with the paper's recipe
	$(MEMFEAT) train pipelines/train.toml --manifest $(MANIFEST) --cache $(CACHE) \
	  --aggregator $(AGG) --head $(HEAD) --seeds $(SEED) --device $(DEVICE) --run $(RUN)

finetune: clips ## train I3D end to end on DATASET, from WEIGHTS (a checkpoint file, or random)
	$(MEMFEAT) finetune pipelines/finetune.toml --manifest $(MANIFEST) --device $(DEVICE) \
	  $(if $(WEIGHTS),--weights $(WEIGHTS)) --run runs/$(DATASET)-i3d

ablation: clips ## compare systems, extraction included: the demo's, or the paper's Table 1 on DATASET
	$(MEMFEAT) ablation $(GRID) --extract --manifest $(MANIFEST) --cache-root cache/$(DATASET) \
	  --run $(GRID_RUN) --device $(DEVICE)

table2: $(VENV)/.installed ## the paper's Table 2: train on Memento10k or VideoMem, evaluate on either
	$(MAKE) extract DATASET=memento10k
	$(MAKE) extract DATASET=videomem
	$(MEMFEAT) transfer pipelines/table2.toml --device $(DEVICE)
	$(MEMFEAT) report runs/table2

report: $(VENV)/.installed ## write the HTML page of the last ablation
	$(MEMFEAT) report $(GRID_RUN)

# --- trials on rendered clips ---

table1-smoke: $(VENV)/.installed ## run all rows of Table 1, with RANDOM WEIGHTS, on twelve demo clips
	$(MEMFEAT) demo
	$(MEMFEAT) ablation pipelines/table1-smoke.toml --extract

demo-table2: $(VENV)/.installed ## run Table 2's grid between two rendered datasets
	$(MAKE) extract DATASET=demo
	$(MAKE) extract DATASET=demo-b
	$(MEMFEAT) transfer pipelines/demo-table2.toml
	$(MEMFEAT) report runs/demo-table2

demo-sampler: $(VENV)/.installed ## tell what frame samplers save on the demo clips, and what they cost
	$(MEMFEAT) demo
	$(MEMFEAT) ablation pipelines/demo-sampler.toml --extract

# --- development ---

test: $(VENV)/.installed-test ## run linters and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory --jobs 2 types tests

types: $(VENV)/.installed-test
	$(BIN)/mypy

# Bytecode is written, for tests start processes that import memfeat.
tests: $(VENV)/.installed-test
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal

test-extras: $(VENV)/.installed-test ## test what takes long or needs large packages (600 MB)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[resmem,minilm,tensorboard]'
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal -m extras

test-gpu: $(VENV)/.installed-test ## test what needs an NVIDIA GPU, in three minutes
	$(BIN)/pytest -n 0 tests/gpu

docs: $(VENV)/.installed-docs ## build the documentation as a web site in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Debian's packages need root. Axe finds what people who cannot see or point would miss.
browser: $(VENV)/.installed-test ## install Chromium and what the tests in it need
	apt-get install --yes --quiet chromium chromium-driver
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	npm install --silent --no-save --prefix $(VENV) axe-core@4.14.1

test-browser: $(VENV)/.installed-test ## test the HTML pages in Chromium
	OMP_NUM_THREADS=1 $(BIN)/pytest -m browser -n 0 tests/browser

picture: $(VENV)/.installed-test ## draw the README's pictures of the demo, in Chromium
	$(BIN)/python tests/browser/picture.py

soak: $(VENV)/.installed-test ## try faults by the thousand, for half an hour; MEMFEAT_SOAK=0.02 tries fewer
	OMP_NUM_THREADS=1 $(BIN)/pytest -m soak -n 0

# torchcodec is measured where FFmpeg's libraries are installed (Debian's package ffmpeg has them).
bench-extract: $(VENV)/.installed-bench ## time stage 1 against the common way, side by side
	$(BIN)/python tests/benchmarks/bench_extract.py

bench-gpu: $(VENV)/.installed-test ## time both stages on a GPU, in six minutes
	$(BIN)/python tests/benchmarks/bench_gpu.py --device $(if $(filter auto,$(DEVICE)),cuda:0,$(DEVICE))

bench-train: $(VENV)/.installed-test ## time stage 2 against the naive way, side by side
	$(BIN)/python tests/benchmarks/bench_train.py

bench-busy: $(VENV)/.installed-test ## time both stages on a machine that others use, too
	$(BIN)/python tests/benchmarks/bench_busy.py

bench-report: $(VENV)/.installed-test ## measure a report of 10,000 videos in Chromium
	$(BIN)/python tests/benchmarks/bench_report.py

clean: ## delete caches of the tools; keep data, caches and runs
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site *.egg-info
