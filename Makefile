# `make demo` shows the main job on a Kubernetes of its own; `make test` runs every test. Both build what they need.
CACHE   ?= $(HOME)/.cache/substratus
TOOLS   ?= $(CACHE)/tools
DENY    := $(CACHE)/bin/cargo-deny
RUST_HOST = $(shell rustc -vV | sed -n 's/^host: //p')
TARGET  := target/x86_64-unknown-linux-musl/debug
DEBIAN  := musl-tools containerd runc containernetworking-plugins iptables conntrack busybox-static docker-registry aria2 \
           curl python3 python3-venv python3-pip binutils iproute2 procps
PLUGINS := $(patsubst plugins/%/plugin.yaml,%,$(wildcard plugins/*/plugin.yaml))

.PHONY: help demo demo-down test build plugins image bench tools deps lint doc deny
help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

deps: ## Install Debian packages and Rust targets that are missing (root)
	@missing=$$(for p in $(DEBIAN); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	 if [ -n "$$missing" ]; then apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; fi
	@rustup target list --installed | grep -q wasm32-unknown-unknown && rustup target list --installed | grep -q x86_64-unknown-linux-musl \
	 || rustup target add wasm32-unknown-unknown x86_64-unknown-linux-musl

tools: deps ## Build the programs of the test cluster from pinned Go modules, once
	tests/cluster/build-tools.sh $(TOOLS)
	tests/python.sh
	tests/model/build.sh
	tests/engine/build.sh

build: deps ## Build the operator and the harness
	cargo build --locked --workspace --bins

plugins: build ## Build the first-party plugins into target/plugins
	@mkdir -p target/plugins
	@for p in $(PLUGINS); do $(TARGET)/substratus plugin build plugins/$$p --output target/plugins/$$p.wasm || exit 1; done

image: plugins ## Build the operator's image as an OCI layout: target/operator.tar
	$(TARGET)/substratus-cluster image --binary $(TARGET)/substratus --plugins target/plugins --output target/operator.tar

test: tools build ## Run every test
	cd plugins && cargo test --locked --quiet
	cargo test --locked --workspace

demo: tools build ## Import and serve a model on a Kubernetes of its own; HUB= and MODEL= name a real one
	$(TARGET)/substratus-demo up --yes

demo-down: ## Remove what the demo started
	$(TARGET)/substratus-demo down

bench: tools plugins ## Measure, in a release build
	cargo build --locked --release --workspace --bins
	target/x86_64-unknown-linux-musl/release/substratus-bench all

lint: deps ## Check format and lints of every workspace
	@for w in . plugins tests/guests; do echo "lint: $$w"; \
	 (cd $$w && cargo fmt --all --check && cargo clippy --locked --quiet --workspace --all-targets -- -D warnings) || exit 1; done

doc: deps ## Build the documentation; broken links are errors
	@for w in . plugins; do (cd $$w && RUSTDOCFLAGS="-D warnings" cargo doc --locked --quiet --workspace --no-deps) || exit 1; done

# Debug, without the default features (a git client, an advisory database): it only reads lock files and licences.
$(DENY):
	cargo install --quiet --locked --debug --no-default-features --version 0.20.2 --target $(RUST_HOST) --root $(CACHE) cargo-deny

deny: deps $(DENY) ## Check licences, banned crates and sources
	@for w in . plugins; do $(DENY) --locked --config deny.toml --manifest-path $$w/Cargo.toml check licenses bans sources || exit 1; done
