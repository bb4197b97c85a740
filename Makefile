# Everything a contributor types. `make demo` and `make test` need Python 3.11+, make and the package registries.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXAMPLE ?= examples/hello
ARCHITECTURE ?= x86_64

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak check format clean build_deno_layer build_runtime_layer build_function wheel

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z_]+:.*## / {printf "  %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ready: requirements.lock pyproject.toml scripts/setup
	@PYTHON=$(PYTHON) scripts/setup
	@touch $@

setup: $(VENV)/.ready  ## make the virtual environment, from the hashes in requirements.lock

demo: setup  ## build examples/hello, start the local Lambda, invoke it by three clients
	@$(BIN)/python scripts/demo.py

test: setup  ## the gate (format, lint, types) and every test
	@scripts/check
	@scripts/test

soak: setup  ## 100,000 invocations on one environment of runtime1, 10,000 of runtime2: minutes
	@SOAK=large scripts/test -n 0 -q -s tests/layer/test_soak.py

check: setup  ## the gate alone
	@scripts/check

format: setup  ## put Python and JavaScript in order
	@scripts/format

build_deno_layer: setup  ## dist/deno-layer-<arch>.zip of EXAMPLE
	@$(BIN)/lambdeno build deno-layer --project $(EXAMPLE)

build_runtime_layer: setup  ## dist/runtime-layer.zip of EXAMPLE
	@$(BIN)/lambdeno build runtime-layer --project $(EXAMPLE)

build_function: setup  ## dist/function.zip of EXAMPLE
	@$(BIN)/lambdeno build function --project $(EXAMPLE)

wheel: setup  ## dist/lambdeno-*.whl, with bootstrap for both architectures in it
	@scripts/wheel

clean:  ## remove what was built (not the virtual environment)
	@rm -rf dist examples/*/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
