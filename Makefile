# The verbs of this repository. Each works by itself from a fresh clone: what it needs is made first. `make test` is the
# whole check; its steps are the targets below, put side by side where they do not wait for each other.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -ec
.DEFAULT_GOAL := help
# Debian keeps haproxy where the path of a plain user does not look.
export PATH := $(PATH):/usr/sbin:/sbin

DEPLOY_TESTS := deploy/tests
PYTEST := $(DEPLOY_TESTS)/.venv/bin/pytest --rootdir $(DEPLOY_TESTS) -c $(DEPLOY_TESTS)/pytest.ini -p no:cacheprovider
# The binary that interop, openapi, browser and deployment tests run; `make interop ROOMCAST_BIN=...` takes another one.
DEBUG_BIN := $(CURDIR)/target/debug/roomcast
RELEASE_BIN := $(CURDIR)/target/release/roomcast

.PHONY: help run test bench figures compare million up tools deploy-tools scripts fmt clippy doc unit oracle faults stores fuzz binaries release interop \
	openapi browser autobahn deploy-check deploy-live deny

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: ## Start one gateway in development mode
	cargo run --release

test: ## Everything: installs what is missing, then every check and test
	@scripts/check.sh

bench: ## Benchmarks of single paths: fan-out, both ways through Redis, and back to a restarted one
	cargo bench --package roomcast

figures: ## The figures of the README, measured on this machine (ten minutes, wants it quiet); `FIGURES="idle chat"`
	scripts/figures.sh $(FIGURES)

compare: ## Roomcast beside Centrifugo and uWebSockets (ten minutes, wants the machine quiet); `COMPARE="saturation chat"`, `SERVER_SETTINGS="NAME=VALUE"` for their environment
	scripts/compare.sh $(COMPARE)

million: ## A million connections on this machine, a quarter of an hour; `CONNECTIONS=20000 HOLD=30s` for fewer
	scripts/million.sh $(if $(CONNECTIONS),--connections $(CONNECTIONS)) $(if $(HOLD),--hold $(HOLD))

up: ## Three gateways, Redis, balancer and Prometheus in containers
	docker compose up --build

tools: ## Programs that the tests run (apt packages; asks for root only if some are missing)
	@scripts/install-tools.sh

deploy-tools: tools $(DEPLOY_TESTS)/.venv/made $(DEPLOY_TESTS)/node_modules/made ## What the deployment tests import

$(DEPLOY_TESTS)/.venv/made: $(DEPLOY_TESTS)/requirements.txt
	rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

$(DEPLOY_TESTS)/node_modules/made: $(DEPLOY_TESTS)/package-lock.json
	npm ci --prefix $(DEPLOY_TESTS)
	touch $@

fmt: ## Layout of the Rust code
	cargo fmt --all --check

clippy: ## Lints
	cargo clippy --workspace --all-targets --locked -- -D warnings

doc: ## Documentation builds without a warning
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --locked

binaries: ## Programs and tests, unoptimised
	cargo build --workspace --bins --tests --locked

unit: tools ## Rust tests, with a real Redis
	cargo test --workspace --locked --no-fail-fast

# Each run has a seed of its own and says which. `make oracle ROOMCAST_ORACLE_SEED=...` repeats its plan: what is killed and cut
# when, and the habits of clients. How threads and sockets come in between is not repeated: a failure may need several runs.
oracle: export ROOMCAST_ORACLE_SECONDS ?= 120
oracle: tools ## Two minutes of nodes, Redis and connections that are killed at random, and nobody misses a publication unawares
	cargo test --package roomcast --locked --test oracle -- --nocapture everybody

# They wait more than they compute: several run at a time, also where there are few processors.
faults: tools ## One fault after the other under load: what becomes of publications, and how long it takes until all are served again
	cargo test --package roomcast --locked --test faults -- --nocapture --test-threads 6

stores: tools ## The tests of history, presence and recovery over Redis 6.2 and 8.2, Valkey 8 and Valkey 9
	scripts/stores.sh

# What a search finds is written where the tests of the package play it, with those inputs that are kept.
fuzz: ## What comes from outside, a minute for each of the fuzzing targets; `SECONDS_EACH=600 TARGETS="websocket::frames"`
	scripts/fuzz.sh $(or $(SECONDS_EACH),60) $(TARGETS)

release: ## Programs as they are shipped
	cargo build --release --workspace --bins --locked

interop: tools $(if $(ROOMCAST_BIN),,binaries) ## Official SDKs and clients without a library against two nodes
	ROOMCAST_BIN="$(or $(ROOMCAST_BIN),$(DEBUG_BIN))" bash gateway/tests/interop/run.sh

autobahn: tools ## The Autobahn suite against the WebSocket framing; `ALL=all` with its long messages, two minutes
	cargo build --package roomcast --example ws_echo --locked
	WS_ECHO_BIN="$(CURDIR)/target/debug/examples/ws_echo" gateway/tests/autobahn/run.sh $(ALL)

openapi: tools $(if $(ROOMCAST_BIN),,binaries) ## The description of the server API against a node, by schemathesis
	ROOMCAST_BIN="$(or $(ROOMCAST_BIN),$(DEBUG_BIN))" bash gateway/tests/openapi/run.sh

browser: tools $(if $(ROOMCAST_BIN),,binaries) ## The playground in headless Chromium
	ROOMCAST_BIN="$(or $(ROOMCAST_BIN),$(DEBUG_BIN))" bash gateway/tests/browser/run.sh

deploy-check: deploy-tools ## Image, compose file, balancer, Prometheus and Kubernetes base, without running a node
	$(PYTEST) -m "not live" $(DEPLOY_TESTS)

deploy-live: deploy-tools $(if $(ROOMCAST_BIN),,release) ## Three nodes behind the balancer, watched by Prometheus
	ROOMCAST_BIN="$(or $(ROOMCAST_BIN),$(RELEASE_BIN))" $(PYTEST) -m live $(DEPLOY_TESTS)

scripts: ## The tables of `make compare` over reports of bad runs, and lints of the scripts where shellcheck is installed
	python3 -B -m unittest discover --start-directory scripts/compare
	@if command -v shellcheck >/dev/null; then shellcheck --external-sources --severity warning scripts/*.sh; \
	else echo "without lints: shellcheck is not installed"; fi

deny: ## Licences, sources and banned crates, where cargo-deny is installed
	@if command -v cargo-deny >/dev/null; then cargo deny --workspace --locked check bans licenses sources; \
	else echo "skipped: cargo-deny is not installed (cargo install --locked cargo-deny)"; fi
