# What each command of the README runs. `make help` lists them.
#
# Builds and downloads are cached outside the clone, so that a fresh clone is ready in seconds.

PYTHON ?= python3
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
export CARGO_TARGET_DIR ?= $(HOME)/.cache/sypy/target
# Cargo profile of what is tested; `release` is what is shipped and measured.
PROFILE ?= ci
# Test processes at a time.
JOBS ?= 2
export PYO3_PYTHON := $(BIN)/python
export VIRTUAL_ENV := $(VENV)
export SY_BIN = $(CARGO_TARGET_DIR)/$(PROFILE)/sy
RELEASE_SY := $(CARGO_TARGET_DIR)/release/sy
# A build with another set of features would replace the one that the other tests run.
OPENDAL_TARGET := $(CARGO_TARGET_DIR)-opendal
UV := $(BIN)/uv

.PHONY: help env build release demo test test-rust test-python test-slow test-opendal test-free-threaded bench bench-cloud bench-ssh fmt lint types docs wheel clean

help:
	@grep -E '^[a-z-]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 20

# Only what is needed to build and test; lint and docs add theirs.
$(VENV)/ready: sypy/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "sypy needs Python 3.10 or later; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q uv
	cd sypy && $(UV) pip install -q --group all rich
	touch $@

env: $(VENV)/ready ## make the environment

build: env ## build the engine and install the package, quickly
	cargo build --profile $(PROFILE) -p sy
	cd sypy && $(BIN)/maturin develop -q --uv --profile $(PROFILE)

release: env ## the same, optimised as shipped
	cargo build --release -p sy
	cd sypy && $(BIN)/maturin develop -q --uv --release

demo: release ## mirror real source trees, and see what it looks like
	$(BIN)/python examples/demo.py

test: test-rust test-python ## run all the tests

test-rust: env
	cargo test -q --profile $(PROFILE) -p sy

test-python: build
	$(BIN)/python -m pytest -q -n $(JOBS) tests $(ARGS)

test-slow: build ## property-based and kill tests, many more cases
	HYPOTHESIS_PROFILE=slow $(BIN)/python -m pytest -q -n $(JOBS) tests $(ARGS)

test-opendal: env ## WebDAV and FTP through OpenDAL, which takes long to build
	cargo build --profile $(PROFILE) -p sy --features opendal --target-dir $(OPENDAL_TARGET)
	SY_OPENDAL_BIN=$(OPENDAL_TARGET)/$(PROFILE)/sy $(BIN)/python -m pytest -q tests/test_opendal.py $(ARGS)

test-free-threaded: ## the tests that matter there, under a Python without GIL
	tests/free_threaded.sh $(ARGS)

bench: release ## measure against other tools, side by side
	PYTHON=$(BIN)/python SYPY_BIN=$(RELEASE_SY) bench/run $(ARGS)

bench-cloud: release ## measure uploads and downloads against other tools, on an S3 server here
	$(BIN)/python bench cloud-peers
	PYTHON=$(BIN)/python SYPY_BIN=$(RELEASE_SY) bench/run cloud $(ARGS)

bench-ssh: release ## measure runs to and from a host against other tools, near by and far away
	PYTHON=$(BIN)/python SYPY_BIN=$(RELEASE_SY) bench/run ssh $(ARGS)
	PYTHON=$(BIN)/python SYPY_BIN=$(RELEASE_SY) bench/run ssh --wan --data As,Bq $(ARGS)

fmt: env ## format
	cargo fmt
	$(BIN)/ruff format -q $(PY)
	$(BIN)/ruff check -q --fix $(PY)

PY := sypy/python tests bench examples docs

lint: env ## formatting and lints
	cargo fmt --check
	cargo clippy --profile $(PROFILE) --workspace --all-targets -- -D warnings
	$(BIN)/ruff format --check $(PY)
	$(BIN)/ruff check $(PY)

types: build ## types of the package, and of its native module
	cd sypy && $(BIN)/mypy
	cd sypy && MYPYPATH=python $(BIN)/python -m mypy.stubtest sypy --mypy-config-file pyproject.toml

docs: build ## build the manual into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict

wheel: env ## build the wheel that is shipped, into dist/
	cd sypy && $(BIN)/maturin build -q --release --out ../dist

clean:
	rm -rf $(VENV) dist site
