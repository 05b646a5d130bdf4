# `make demo` shows the main job on a Kubernetes of its own; `make test` runs every test. Both build what they need.
# CLUSTER=current uses the cluster of your kubeconfig instead, CLUSTER=kind one of kind's.
CACHE   ?= $(HOME)/.cache/substratus
TOOLS   ?= $(CACHE)/tools
DENY    := $(CACHE)/bin/cargo-deny
CYCLONE := $(CACHE)/bin/cargo-cyclonedx
AUDITABLE := $(CACHE)/bin/cargo-auditable
RUST_HOST = $(shell rustc -vV | sed -n 's/^host: //p')
TARGET  := target/x86_64-unknown-linux-musl/debug
PLUGINS := $(patsubst plugins/%/plugin.yaml,%,$(wildcard plugins/*/plugin.yaml))
MODE     = $(shell CLUSTER='$(CLUSTER)' tests/preflight.sh mode)
STEP    := @tests/step.sh

# What every build needs, and what a node of our own and the tests beside it need too.
DEBIAN_BUILD := musl-tools busybox-static curl python3 python3-venv python3-pip binutils
DEBIAN_NODE  := containerd runc containernetworking-plugins iptables conntrack docker-registry aria2 iproute2 procps
DEBIAN_TEST  := git openssh-client dropbear-bin uidmap
DEBIAN_BENCH := rclone
DEBIAN        = $(DEBIAN_BUILD) $(if $(filter own,$(MODE)),$(DEBIAN_NODE) $(if $(filter demo%,$(MAKECMDGOALS)),,$(DEBIAN_TEST))) $(if $(filter bench%,$(MAKECMDGOALS)),$(DEBIAN_BENCH))
# Tests of these modules start a cluster, or need root, so that they do not run on a cluster of somebody else.
OWN_ONLY := badinput bucket builder cluster e2e engine kubectl_explain manners operator plugin_author plugin_offline plugin_signatures rollouts

export SUBSTRATUS_TOOLS := $(TOOLS)
# Tests wait for clusters more than they compute: one more at a time than there are cores.
export RUST_TEST_THREADS ?= $(shell expr $$(nproc) + 1)

# One after the other: a step may use what the one before it has made.
.NOTPARALLEL:
.PHONY: help preflight demo demo-down test soak signatures build plugins release-plugins sbom image bench bench-load demo-tools tools deps lint doc deny
help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

preflight: ## Say where demo and tests would run, what they change on this machine, and what is missing
	@CLUSTER='$(CLUSTER)' TOOLS='$(TOOLS)' PACKAGES='$(DEBIAN)' tests/preflight.sh $(or $(filter demo test soak,$(MAKECMDGOALS)),demo)

deps: ## Install Debian packages (root), Rust targets and crates that are missing
	@command -v dpkg >/dev/null || exit 0; \
	 missing=$$(for p in $(DEBIAN); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	 if [ -n "$$missing" ]; then apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; fi
	@rustup target list --installed | grep -q wasm32-unknown-unknown && rustup target list --installed | grep -q x86_64-unknown-linux-musl \
	 || rustup target add wasm32-unknown-unknown x86_64-unknown-linux-musl
# Guests are built by programs that run in a network namespace without a way out.
	@for w in . plugins tests/guests; do cargo fetch --quiet --locked --manifest-path $$w/Cargo.toml || exit 1; done

demo-tools: deps ## Build the programs of the demo's cluster from pinned Go modules, the tiny model and the engine, once
	$(if $(filter own,$(MODE)),$(STEP) "programs of the cluster" tests/cluster/build-tools.sh $(TOOLS))
	$(STEP) "tiny model" tests/model/build.sh
	$(STEP) "engine" tests/engine/build.sh

tools: demo-tools ## Build what tests and benches need beside that, once
	$(STEP) "Python with the hub's real client" tests/python.sh
	$(STEP) "JupyterLab" tests/jupyter/build.sh
	$(STEP) "importer in Python" examples/importer-python/build.sh
	$(STEP) "trainer" tests/trainer/build.sh
	$(if $(filter own,$(MODE)),$(STEP) "Azurite" tests/azurite/build.sh)
	$(if $(filter own,$(MODE)),$(STEP) "BuildKit" tests/buildkit/build.sh $(TOOLS))
	$(if $(filter own,$(MODE)),$(STEP) "image that builds" tests/buildkit/root.sh)

build: deps ## Build the operator and the harness
	$(STEP) "operator and harness" $(or $(BUILD),cargo build) --locked $(PROFILE) --workspace --bins

plugins: build ## Build the first-party plugins into target/plugins
	@mkdir -p target/plugins
	@for p in $(PLUGINS); do $(TARGET)/substratus plugin build plugins/$$p --output target/plugins/$$p.wasm || exit 1; done

# Where they go, and what they are signed with, come from whoever releases: see plugins/release.sh.
release-plugins: sbom build ## Build, push and sign the first-party plugins: RELEASE=registry.example/substratus COSIGN_KEY=cosign.key
	$(STEP) "cosign" tests/cosign/build.sh $(TOOLS)
	@SBOM=$(CURDIR)/target/sbom plugins/release.sh $(or $(RELEASE),$(error set RELEASE=registry.example/substratus)) \
	 $(TARGET)/substratus $(TOOLS)/cosign $(PLUGINS)

$(CYCLONE):
	cargo install --quiet --locked --debug --version 0.5.9 --target $(RUST_HOST) --root $(CACHE) cargo-cyclonedx

# What ships lists its own crates in a section that scanners of images read.
$(AUDITABLE):
	cargo install --quiet --locked --debug --version 0.7.7 --target $(RUST_HOST) --root $(CACHE) cargo-auditable

sbom: deps $(CYCLONE) ## List what the image's program and every plugin are made of: target/sbom/*.cdx.json (CycloneDX)
	@tests/sbom.sh $(CYCLONE) target/sbom

image: plugins ## Build the operator's image as an OCI layout: target/operator.tar
	$(TARGET)/substratus-cluster image --binary $(TARGET)/substratus --plugins target/plugins --output target/operator.tar

test: preflight tools build ## Run every test; with CLUSTER=current and REGISTRY= those that any cluster can bear
	$(STEP) "plugins' own tests" sh -c 'cd plugins && cargo test --locked --quiet'
ifeq ($(MODE),own)
	cargo test --locked --workspace
else
	cargo test --locked --workspace --lib --bins
	$(TARGET)/substratus-demo install --cluster $(MODE)
	@SUBSTRATUS_CLUSTER=$(MODE) cargo test --locked --workspace --test it -- $(OWN_ONLY:%=--skip %::); result=$$?; \
	 $(TARGET)/substratus-demo down --cluster $(MODE) --yes && exit $$result
endif

soak: preflight tools build signatures ## Run the tests that kill things with many seeds: 200 where bytes move, 50 with a cluster, or SEEDS=
	SUBSTRATUS_SEEDS=$(or $(SEEDS),200) cargo test --locked --workspace --test it -- load::chaos stage::chaos --nocapture
	SUBSTRATUS_SEEDS=$(or $(SEEDS),50) cargo test --locked --workspace --test it -- operator::chaos e2e::chaos e2e::build::chaos --nocapture

signatures: build ## Have the real cosign sign plugins anew, and hold the host and cosign at what is expected of both
	$(STEP) "cosign" tests/cosign/build.sh $(TOOLS)
	$(TARGET)/substratus-signatures

demo: preflight demo-tools build ## Import and serve a model on a Kubernetes; HUB= and MODEL= name a real one
	$(TARGET)/substratus-demo up --cluster $(MODE) $(if $(filter own,$(MODE)),--yes)

demo-down: ## Remove what the demo started
	$(TARGET)/substratus-demo down --cluster $(MODE)

# What is measured is what ships: everything below `bench` is built, packed and run in the release profile.
bench: PROFILE := --release
bench: BUILD := $(AUDITABLE) auditable build
bench: TARGET := target/x86_64-unknown-linux-musl/release
bench: $(AUDITABLE) tools image ## Measure, in a release build; SECTION=load|buckets|small|killed|datasets|plugins|operator|notebook|builds|sizes
	$(TARGET)/substratus-bench $(or $(SECTION),all) $(ARGS)

bench-load: SECTION := load
bench-load: bench ## Measure loads next to their peers; ARGS="--size 256 --files 500 --runs 6" takes minutes instead of an hour

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
