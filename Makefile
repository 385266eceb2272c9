PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out/demo

export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo validate papers test lint clean

demo: $(VENV)/.installed  ## which scheduler serves a chat workload best on one A100?
	$(BIN)/python -m simulator compare --workload chat --num-prompts 1024 --request-rate 2.5 \
	    --model mistral-7b --device a100-sxm \
	    --policies orca,vllm,sarathi-serve --output $(OUT)

validate: $(VENV)/.installed-engine  ## does the simulator predict the engine on this machine?
	$(BIN)/python -m engine validate chat --num-prompts 48 --length-scale 0.06 \
	    --model llama-60m --load-format dummy --max-num-seqs 16 \
	    --policies orca,vllm,sarathi-serve:max_num_batched_tokens=256 --budget 50 --output out/validation

papers: $(VENV)/.installed-figures  ## both papers' experiments again: docs/papers.md and its figures
	$(BIN)/python -m simulator paper --all --output docs

test: $(VENV)/.installed-test lint  ## the whole suite
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) out

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "error: $(PYTHON) is too old; expected Python 3.11 or newer (make PYTHON=...)"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-figures: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[figures]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-engine: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[engine]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[engine,test]'
	touch $@ $(VENV)/.installed-engine $(VENV)/.installed-figures $(VENV)/.installed
