# Every chore of the project has one door, and continuous integration uses the same doors as people.
# `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
CARGO ?= cargo
JOBS ?= 2
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
TORCH_FLOOR := 2.10.0
# Tests may be narrowed: make test PYTEST_ARGS="-k vmap"
PYTEST_ARGS ?=

# maturin sets the same variable: an extension module must not link libpython.
export PYO3_BUILD_EXTENSION_MODULE := 1

SOURCES := $(shell find rust python cuda include pyproject.toml Cargo.toml Cargo.lock README.md \
	-name __pycache__ -prune -o -type f ! -name '*.so' -print 2>/dev/null)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---------------------------------------------------------------- the two commands of the README

.PHONY: bench
bench: $(VENV)/.bench ## install striate into .venv and run its main job, `striate bench`
	$(VENV)/bin/striate bench $(BENCH_ARGS)

.PHONY: test
test: $(VENV)/.test cargo-test pytest ## install striate into .venv and run every test

# ---------------------------------------------------------------- environments

$(PY):
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip

# The library that the environment holds.
CORE = $$($(PY) -c 'import importlib.util as u; print(u.find_spec("striate._core").origin)')

# The environment holds the built wheel, never a link into the source tree: what is tested is what is shipped.
$(VENV)/.%: $(SOURCES) | $(PY)
	$(PY) -m pip install --quiet ".[$*]"
	@touch $@

.PHONY: build-dev
build-dev: ## build the extension into python/striate for use with PYTHONPATH=python
	$(CARGO) build --locked --release -p striate-bridge -j $(JOBS)
	cp $(TARGET_DIR)/release/lib_core.so python/striate/_core.abi3.so

# ---------------------------------------------------------------- tests

.PHONY: cargo-test
cargo-test: ## test the Rust workspace
	$(CARGO) test --locked --workspace -j $(JOBS)

.PHONY: pytest
pytest: $(VENV)/.test ## run the Python tests against the installed wheel
	$(PY) -m pytest -n $(JOBS) $(PYTEST_ARGS)

.PHONY: matrix
matrix: ## bridge and operator tests on the oldest and the newest supported torch
	$(PYTHON) tools/matrix.py $(TORCH_FLOOR) newest

.PHONY: aarch64
aarch64: ## type-check the workspace for aarch64, where that target is installed
	@if rustup target list --installed 2>/dev/null | grep -q '^aarch64-unknown-linux-gnu$$'; then \
		PYO3_CROSS_PYTHON_VERSION=3.10 $(CARGO) check --locked --workspace --target aarch64-unknown-linux-gnu -j $(JOBS); \
	else \
		echo "aarch64: SKIPPED, the target aarch64-unknown-linux-gnu is not installed"; \
	fi

# ---------------------------------------------------------------- what the code looks like

.PHONY: fmt
fmt: $(VENV)/.dev ## format Rust and Python
	$(CARGO) fmt --all
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

.PHONY: lint
lint: lint-rust lint-python ## rustfmt, clippy, ruff, mypy and the stub of _core

.PHONY: lint-rust
lint-rust: ## rustfmt and clippy; every warning is an error
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -j $(JOBS) -- -D warnings \
		-D clippy::undocumented_unsafe_blocks -D clippy::too_many_lines -D clippy::too_many_arguments

.PHONY: lint-python
lint-python: $(VENV)/.dev ## ruff, mypy, the stub of _core and the plan of the house
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) tools/check_house.py
	$(PY) -m check_jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(PY) -m mypy
	$(PY) -m mypy.stubtest striate._core

GENERATED := tools/kernel_table.py tools/zoo_table.py tools/readme_table.py tools/record_table.py \
	docs/pictures/draw.py tools/plots.py

.PHONY: docs
docs: $(VENV)/.dev ## write the generated documents anew and build the site into site/
	for tool in $(GENERATED); do $(PY) $$tool || exit 1; done
	$(PY) -m sphinx --quiet --fail-on-warning -c docs . site
	@echo "site/index.html"

.PHONY: docs-check
docs-check: $(VENV)/.dev ## links, generated documents, and the site without a warning
	$(PY) tools/check_docs.py
	for tool in $(GENERATED); do $(PY) $$tool --check || exit 1; done
	$(PY) -m sphinx --quiet --fail-on-warning -c docs . $(TARGET_DIR)/site

# ---------------------------------------------------------------- what is shipped

.PHONY: wheel
wheel: $(VENV)/.dev ## build the manylinux_2_28 wheel into dist/
	rm -f dist/*
	PATH="$(abspath $(VENV))/bin:$$PATH" $(PY) -m maturin build --release --locked --zig \
		--compatibility manylinux_2_28 --auditwheel check --out dist
	$(PY) tools/check_symbols.py --glibc 2.28 dist/*.whl

.PHONY: sdist-check
sdist-check: $(VENV)/.dev ## build the sdist, then a wheel from nothing but the sdist
	$(PY) tools/check_sdist.py

.PHONY: release-check
release-check: wheel sdist-check ## sdist, wheel, symbols, README, version and changelog agree
	$(PY) tools/check_release.py dist/*.whl dist/*.tar.gz

.PHONY: symbols
symbols: $(VENV)/.test ## the extension needs neither torch nor C++ symbols
	$(PY) tools/check_symbols.py $(CORE)

.PHONY: baseline
baseline: $(VENV)/.test ## no AVX instruction stands outside the dispatched functions
	$(PY) tools/check_baseline.py $(CORE)

.PHONY: check
check: lint docs-check symbols baseline aarch64 ## everything but the tests, before a change is proposed

.PHONY: clean
clean: ## remove what was built, environments included
	$(CARGO) clean
	rm -rf $(VENV) .venv-matrix dist .pytest_cache .mypy_cache .ruff_cache .hypothesis python/striate/_core.abi3.so
