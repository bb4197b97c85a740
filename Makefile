# Everything a contributor types. `make demo` and `make test` need Python 3.11+, make and the package registries.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXAMPLE ?= examples/hello
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak bench check format wheel clean \
  build_deno_layer deploy_deno_layer build_runtime_layer deploy_runtime_layer build_function \
  create_function update_function_code update_function_configuration delete_function

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

bench: setup  ## all figures against all peers, into bench/results/: 15 minutes on an idle machine
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bench/requirements.lock
	@$(BIN)/python bench/run.py --into bench/results

check: setup  ## the gate alone
	@scripts/check

format: setup  ## put Python and JavaScript in order
	@scripts/format

# The steps of a deployment, one by one, for EXAMPLE; ARGS go to lambdeno (ARGS="--region eu-west-1 --dry-run").

build_deno_layer: setup  ## dist/deno-layer-<arch>.zip of EXAMPLE
	@$(BIN)/lambdeno build deno-layer --project $(EXAMPLE) $(ARGS)

deploy_deno_layer: setup  ## publish it where its digest is new; prints the layer's ARN
	@$(BIN)/lambdeno deploy deno-layer --project $(EXAMPLE) $(ARGS)

build_runtime_layer: setup  ## dist/runtime-layer.zip of EXAMPLE
	@$(BIN)/lambdeno build runtime-layer --project $(EXAMPLE) $(ARGS)

deploy_runtime_layer: setup  ## publish it where its digest is new; prints the layer's ARN
	@$(BIN)/lambdeno deploy runtime-layer --project $(EXAMPLE) $(ARGS)

build_function: setup  ## dist/function.zip of EXAMPLE
	@$(BIN)/lambdeno build function --project $(EXAMPLE) $(ARGS)

create_function: setup  ## the function, its role and its log, on the layers deployed
	@$(BIN)/lambdeno deploy function --project $(EXAMPLE) $(ARGS)

update_function_code: setup  ## the code alone
	@$(BIN)/lambdeno deploy code --project $(EXAMPLE) $(ARGS)

update_function_configuration: setup  ## all but the code
	@$(BIN)/lambdeno deploy configuration --project $(EXAMPLE) $(ARGS)

delete_function: setup  ## the function, its role and its log; asks first
	@$(BIN)/lambdeno destroy --project $(EXAMPLE) $(ARGS)

wheel: setup  ## dist/lambdeno-*.whl, with bootstrap for both architectures in it
	@scripts/wheel

clean:  ## remove what was built (not the virtual environment)
	@rm -rf dist examples/*/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
