# The front door. `make` alone says what there is.
#
# Only Rust, make and a C++ compiler need to be here beforehand: `setup` installs the rest on Debian and Ubuntu, and does nothing
# when nothing is missing. CARGO_TARGET_DIR is honoured: point it at a kept folder and RocksDB is compiled once.

SHELL := /bin/bash
.DEFAULT_GOAL := help

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
VENV := $(abspath $(TARGET_DIR))/redis-py
export TIDEWATER_PYTHON := $(VENV)/bin/python

.PHONY: help setup setup-build setup-test build demo test lint bench bench-compare bench-micro bench-floor bench-outage bench-deletes clean

help: ## what there is
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: setup-build setup-test ## install what is missing to build and test

# RocksDB's bindings are generated with libclang, RocksDB itself is C++.
setup-build:
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust from https://rustup.rs, then try again"; exit 1; }
	@missing=""; \
	command -v g++ >/dev/null || command -v clang++ >/dev/null || missing="$$missing g++"; \
	ldconfig -p 2>/dev/null | grep -q 'libclang[-.]' && ls /usr/lib/llvm-*/lib/clang/*/include/stddef.h >/dev/null 2>&1 \
		|| [ -n "$$LIBCLANG_PATH" ] || missing="$$missing libclang-dev"; \
	$(call install,$$missing)

# The outside tests talk to a cluster with redis-cli and redis-py.
setup-test: setup-build
	@missing=""; \
	command -v redis-cli >/dev/null || missing="$$missing redis-tools"; \
	python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing="$$missing python3 python3-venv"; \
	$(call install,$$missing)
	@[ -x $(TIDEWATER_PYTHON) ] && $(TIDEWATER_PYTHON) -c 'import redis' 2>/dev/null || { \
		echo "making a Python environment with redis-py in $(VENV)"; \
		mkdir -p $(TARGET_DIR) && python3 -m venv $(VENV) && $(VENV)/bin/pip install --quiet --disable-pip-version-check redis; }

define install
if [ -n "$(strip $(1))" ]; then \
	echo "installing:$(1)"; \
	command -v apt-get >/dev/null || { echo "no apt-get here: install these by hand:$(1)"; exit 1; }; \
	sudo=""; [ "$$(id -u)" = 0 ] || sudo="sudo"; \
	$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $(1) >/dev/null; \
fi
endef

build: setup-build
	cargo build --workspace --bins

demo: build ## a real three-node cluster takes real data, loses a node, goes on, comes level (about a minute after the build)
	$(TARGET_DIR)/debug/tidewater demo

lint: setup-build ## formatting and clippy, warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

test: setup lint ## everything: formatting, clippy, all tests
	cargo test --workspace

bench: build ## the canonical run: three nodes under load, a partition, a kill, every answer checked (3 minutes after the build)
	$(TARGET_DIR)/debug/tidewater-bench $(ARGS)

bench-compare: build ## Tidewater beside Redis Cluster, the same load in turn (about 15 minutes; needs redis-server)
	@command -v redis-server >/dev/null || { echo "redis-server is missing: apt-get install redis-server"; exit 1; }
	$(TARGET_DIR)/debug/compare $(ARGS)

bench-micro: setup-build ## what one call costs
	cargo run -p bench --bin micro

bench-floor: setup-build ## what a request cannot cost less than
	cargo run -p bench --bin floor

bench-outage: build ## what an outage of 60 s costs, by kill -9, SIGSTOP and a cut (about 6 minutes; the cut needs root)
	cargo run -p bench --bin outage

bench-deletes: build ## what becomes of 100,000 deletes while an owner is away (about 3 minutes)
	cargo run -p bench --bin deletes

clean: ## remove what was built
	cargo clean
