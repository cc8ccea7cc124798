# Slipway's verbs. A bare `make` lists them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
GOOGLEAPIS := build/googleapis
PROTOS := $(shell find protos -name '*.proto' | sort)
GENERATED := clients/python/src
DISTRIBUTIONS := -e clients/python -e services/common -e services/registry -e 'services/runner[nvidia]'

.PHONY: help
help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.installed ## create .venv with the four distributions and the tools, under constraints.txt
.venv/.installed: constraints.txt requirements-dev.in $(wildcard clients/python/pyproject.toml services/*/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Slipway needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt $(DISTRIBUTIONS) -r requirements-dev.in
	@touch $@

.PHONY: constraints
constraints: ## write constraints.txt anew from what is installed
	{ echo "# Exact versions that CI proves. Refresh: make constraints"; $(BIN)/pip list --format=freeze --exclude-editable | grep -v -i '^pip=\|^setuptools='; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

$(GOOGLEAPIS)/google/rpc/status.proto: .venv/.installed
	@mkdir -p $(GOOGLEAPIS)/google/rpc
	@cp $$($(BIN)/python -c 'import pathlib, google.rpc; print(pathlib.Path(list(google.rpc.__path__)[0]))')/*.proto $(GOOGLEAPIS)/google/rpc/

# generate DIR: the stubs and their types, into DIR
define generate
	$(BIN)/python -m grpc_tools.protoc -I protos -I $(GOOGLEAPIS) --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
		--python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet:$(1) --mypy_grpc_out=quiet:$(1) $(PROTOS)
	find $(1)/slipway -name '*_pb2_grpc.py*' -exec sh -c 'grep -q "^class .*Stub" "$$0" || rm "$$0"' {} \;
endef

.PHONY: proto
proto: $(GOOGLEAPIS)/google/rpc/status.proto ## generate the stubs in clients/python/src/slipway from protos/
	find $(GENERATED)/slipway -name '*_pb2*' -delete
	$(call generate,$(GENERATED))

.PHONY: proto-check
proto-check: $(GOOGLEAPIS)/google/rpc/status.proto
	rm -rf build/generated && mkdir -p build/generated
	$(call generate,build/generated)
	diff -r -x __pycache__ -x py.typed build/generated/slipway $(GENERATED)/slipway || { echo "Generated code is stale: run make proto" >&2; exit 1; }

.PHONY: buf
buf: setup $(GOOGLEAPIS)/google/rpc/status.proto
	$(BIN)/buf lint
	$(BIN)/buf format -d --exit-code protos
	$(BIN)/buf breaking protos --against protos/baseline.binpb

.PHONY: docs
docs: setup ## write the option tables of docs/configuration.md anew
	$(BIN)/python -m deploy.option_tables

.PHONY: baseline
baseline: $(GOOGLEAPIS)/google/rpc/status.proto ## move the contract's baseline to what protos/ says now (with a release)
	$(BIN)/buf build protos -o protos/baseline.binpb

.PHONY: types
types: setup ## mypy, strict
	$(BIN)/mypy

.PHONY: lint
lint: setup proto-check buf types ## ruff, mypy, import contracts, buf, generated code fresh
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --cache-dir build/import-linter

# What `make test` needs; `make test-full` adds vllm.
BACKENDS ?= llama-server transformers
.PHONY: backends
backends: ## install llama-server and transformers serve into a cache outside the checkout (BACKENDS="… vllm")
	$(PYTHON) deploy/backends/install.py $(BACKENDS)

# Tests wait more than they compute: one worker more than there are cores, up to six.
WORKERS ?= $(shell n=$$(nproc); echo $$((n < 5 ? n + 1 : 6)))
.PHONY: test
test: lint backends ## lint, then every test that fits into minutes
	$(BIN)/pytest -m "not full" -n $(WORKERS) --dist loadfile $(PYTEST)

.PHONY: test-full
test-full: setup ## the long lanes: more kills, vLLM, other users, small disks
	$(MAKE) backends BACKENDS="llama-server transformers vllm"
	$(BIN)/pytest -m full $(PYTEST)

.PHONY: bench
bench: setup ## measure side by side with what a user would pick instead
	$(BIN)/python -m tests.bench

# BACKEND=llama-server | transformers, HUB=emulator | real
BACKEND ?= llama-server
HUB ?= emulator
.PHONY: demo
demo: setup ## from a name to an answer: search, pull, load, ask, unload (BACKEND=transformers, HUB=real)
	$(MAKE) backends BACKENDS="$(BACKEND)"
	$(BIN)/python -m deploy.demo --backend $(BACKEND) --hub $(HUB)

.PHONY: dev
dev: setup ## a registry and a runner on the default ports, against the Hub emulator, until Ctrl-C
	$(MAKE) backends BACKENDS="$(BACKEND)"
	$(BIN)/python -m deploy.demo --backend $(BACKEND) --hub $(HUB) --stay

.PHONY: clean
clean: ## remove what was built here; backends stay in their cache
	rm -rf build .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
