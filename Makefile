# `make` alone lists the targets. Extra arguments go in ARGS: make run ARGS="--http-listen 127.0.0.1:0"
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first Python that is new enough and can make a virtual environment. make PYTHON=... overrides it.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& echo $$python && break; done)
BIN := .venv/bin
# Stamps: touched once the environment has what the service, or the developer, needs.
RUNTIME := .venv/.runtime
DEV := .venv/.dev
ARGS ?=
# How many random inputs make fuzz gives each route and method.
EXAMPLES ?= 300

# buf keeps its cache here rather than in the home folder, which an automated run may not have.
export BUF_CACHE_DIR := $(CURDIR)/.cache/buf
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Images of containers often set it, and then each of the many processes here compiles its modules anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup run test fuzz soak test-clients check check-proto check-gen check-code check-package fix gen \
	gen-clients bench lock release-image clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(RUNTIME) ## Create .venv with .venv/bin/localplane in it

run: $(RUNTIME) ## Start the service on loopback: gRPC on 50051, HTTP on 8080
	@exec $(BIN)/localplane serve $(ARGS)

test: $(DEV) ## Run the tests; ARGS="-k name" for some of them
	$(BIN)/python -m pytest -n logical --dist worksteal $(ARGS)

test-clients: $(DEV) ## Build examples/clients and run them against a service; ARGS="go" for one of them
	$(BIN)/python tools/run_clients.py $(ARGS)

fuzz: $(DEV) ## Send routes and methods what nobody should, and try schedules, in great numbers; ARGS="-k name" for some
	LOCALPLANE_FUZZ_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest --timeout 0 \
		tests/contract/test_fuzz.py tests/contract/test_errors*.py tests/unit/scheduling/test_core_schedules.py $(ARGS)

soak: $(DEV) ## Run for many minutes what must not grow or wear out; LOCALPLANE_SOAK_CYCLES=N for another number
	$(BIN)/python -m pytest -m soak tests/soak $(ARGS)

check: check-proto check-gen check-code check-package ## Everything that must hold before a commit lands, but the tests

check-proto: $(DEV) ## Lint the protos and refuse a break with the last release
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code --path proto/localplane
	@mkdir -p build
	$(BIN)/buf build -o build/protos.binpb
	$(BIN)/buf breaking build/protos.binpb --against proto/released.binpb --config buf.yaml

check-gen: $(DEV) ## Fail if gen/ or gateway/openapi.yaml is not what the protos give
	$(BIN)/python tools/generate.py --check

check-code: $(DEV) ## Lint, formatting, types, and who may import whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

check-package: $(DEV) ## Build the wheel and run the tests against it in a clean environment
	$(BIN)/python tools/check_wheel.py tests/unit tests/gateway tests/e2e

fix: $(DEV) ## Repair what can be repaired of the above
	$(BIN)/buf format --write --path proto/localplane
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

gen: $(DEV) ## Generate gen/ and gateway/openapi.yaml from proto/
	$(BIN)/python tools/generate.py

gen-clients: $(DEV) ## Generate the code in examples/clients; ARGS="go" for one of them
	$(BIN)/python tools/generate_clients.py $(ARGS)

bench: $(DEV) ## Measure; ARGS="codec rest" for some of it
	$(BIN)/python bench $(ARGS)

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-annotate --no-header $(ARGS)
lock: $(DEV) ## Resolve the lock files anew; keeps versions unless ARGS=--upgrade
	$(LOCK) pyproject.toml --all-extras --output-file requirements.lock
	$(LOCK) --group build --output-file requirements-build.lock
	$(LOCK) pyproject.toml --all-extras --group dev --constraints requirements.lock \
		--constraints requirements-build.lock --output-file requirements-dev.lock

release-image: $(DEV) ## Record the protos as released; from then on check-proto refuses to break them
	$(BIN)/buf build --exclude-source-info -o proto/released.binpb

clean: ## Remove what the other targets made, .venv included
	rm -rf .venv build dist .cache .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	rm -rf examples/clients/node/dist examples/clients/node/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The first time takes a minute, so pip shows what it does; later it would list what is there already.
QUIETLY = $(if $(wildcard $@),--quiet)
# pip looks where the user's environment and configuration say; no file here names an index. Every
# download is checked against its hash, and the build of the project itself fetches nothing.
$(RUNTIME): requirements.lock requirements-build.lock pyproject.toml
	@test -n "$(PYTHON)" || \
		{ echo "cannot set up: no Python 3.11 or newer with venv found; name one with PYTHON=..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv
	$(BIN)/python -m pip install $(QUIETLY) --require-hashes -r requirements-build.lock -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(RUNTIME) requirements-dev.lock
	$(BIN)/python -m pip install $(QUIETLY) --require-hashes -r requirements-dev.lock
	@touch $@
