# `make test` is everything. What it downloads (pinned) and builds for tests beside cargo's own is under .test/.

CLIENTS := tools/clients/run
CORELOG ?= target/release/corelog
DENY_VERSION := 0.20.2
CARGO_FUZZ_VERSION := 0.13.2
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

.PHONY: help test test-rust test-instructions instructions test-crash test-cluster test-differential conformance crash cluster hostile differential corelog dist test-clients test-readme test-kcat test-python test-java test-node test-go test-kafka fetch-clients lint fmt clippy layers deny fuzz

help:
	@echo 'make test          Rust tests, instruction counts, crash, cluster and differential suite, README, every client suite; CI=true: a missing runtime (java, node, go) or valgrind fails'
	@echo 'make test-rust     cargo test of the whole workspace'
	@echo 'make test-readme   the commands of README.md, run as they stand there'
	@echo 'make test-clients  the client suites against the release binary (CORELOG=path for another)'
	@echo 'make instructions  instructions per request of a few cases, by callgrind, against what is written down'
	@echo 'make crash         kill -9 under load, ROUNDS=8 times'
	@echo 'make cluster       three brokers under load, killed, paused and restarted, for DURATION=60s; SEED=number repeats the faults,'
	@echo '                   ONLY=kill,pause: these alone'
	@echo 'make differential  the same requests to Apache Kafka and to Corelog; ONLY=text: cases with that in their names'
	@echo 'make hostile       hostile clients of many kinds, stops and kills for DURATION=60s (1h, ...): others are served, memory stays bounded;'
	@echo '                   SEED=number repeats the choices, ONLY=text: attacks with that in their names'
	@echo 'make test-kcat     one of them; also test-python test-java test-node test-go'
	@echo 'make test-kafka    the same suites against Apache Kafka, to see that they are right'
	@echo 'make fetch-clients download what the client suites need, run nothing'
	@echo 'make dist          release binaries, stripped, with their symbols beside them, in target/dist'
	@echo 'make lint          fmt, clippy, layers, deny'
	@echo 'make fuzz          every fuzz target, SECONDS_EACH=60; wants a nightly toolchain'

# All parts run, whatever the first one finds. .test/totals: passed and failed, for .ci/run.
test:
	@mkdir -p .test && rm -f .test/totals.*
	@status=0; \
	$(MAKE) --no-print-directory test-rust || status=1; \
	$(MAKE) --no-print-directory test-instructions || status=1; \
	$(MAKE) --no-print-directory test-crash || status=1; \
	$(MAKE) --no-print-directory test-cluster || status=1; \
	$(MAKE) --no-print-directory test-differential || status=1; \
	$(MAKE) --no-print-directory test-readme || status=1; \
	$(MAKE) --no-print-directory test-clients || status=1; \
	cat .test/totals.* 2>/dev/null | awk '{ p += $$1; f += $$2 } END { print p + 0, f + 0 }' > .test/totals; \
	read -r passed failed < .test/totals; echo "all tests: $$passed passed, $$failed failed"; \
	exit $$status

# A crate that does not compile has no result line: then the failure of cargo itself is the one that counts.
test-rust:
	@mkdir -p .test
	@status=0; cargo test --workspace --no-fail-fast 2>&1 | tee .test/rust.log || status=1; \
	awk -v s=$$status '/^test result:/ { p += $$4; f += $$6 } END { print p + 0, (s && !f) ? 1 : f + 0 }' .test/rust.log > .test/totals.rust; \
	exit $$status

INSTRUCTIONS := cargo run --quiet --release -p corelog-broker --example instructions

instructions:
	@$(INSTRUCTIONS)

test-instructions:
	@mkdir -p .test && echo 0 1 > .test/totals.instructions
	@$(INSTRUCTIONS) && echo 1 0 > .test/totals.instructions

# A part of it for every change; `make crash ROUNDS=60` for more, DATA=10GiB for a start with much data. How long a start
# takes is the disk's affair too: `make crash` holds it to a second, `make test` tells it.
ROUNDS ?= 8
DATA ?= 0
CONFORMANCE := target/release/conformance

conformance: corelog
	@cargo build --release -p corelog-conformance

crash: conformance
	@$(CONFORMANCE) --binary $(CORELOG) crash --rounds $(ROUNDS) --data $(DATA) --ready-max-ms 1000

test-crash: conformance
	@if $(CONFORMANCE) --binary $(CORELOG) crash --rounds $(ROUNDS); then echo 1 0; else echo 0 1; fi | tee .test/crash.log | sed '$$d'; \
	tail -n 1 .test/crash.log > .test/totals.crash; [ "$$(cat .test/totals.crash)" = '1 0' ]

# Runs the cases, or makes the attacks, whose names have it: ONLY='fetch sessions'.
ONLY ?=
# Not part of `make test`: it bounds how long others wait, which a busy machine may miss.
DURATION ?= 60s
SEED ?=
hostile: conformance
	@$(CONFORMANCE) --binary $(CORELOG) hostile --duration $(DURATION) $(if $(SEED),--seed $(SEED)) '$(ONLY)'

CLUSTER = $(CONFORMANCE) --binary $(CORELOG) cluster --duration $(DURATION) $(if $(SEED),--seed $(SEED))

cluster: conformance
	@$(CLUSTER) '$(ONLY)'

test-cluster: conformance
	@mkdir -p .test && echo 0 1 > .test/totals.cluster
	@$(CLUSTER) && echo 1 0 > .test/totals.cluster

differential: conformance
	@$(CONFORMANCE) --binary $(CORELOG) differential '$(ONLY)'

# A start that fails leaves no totals of its own: then that is the failure that counts.
test-differential: conformance
	@mkdir -p .test && echo 0 1 > .test/totals.differential
	@$(CONFORMANCE) --binary $(CORELOG) differential --totals .test/totals.differential

# It builds what the README has its reader build.
test-readme:
	@mkdir -p .test && echo 0 1 > .test/totals.readme
	@tools/readme.py --totals .test/totals.readme

test-clients: corelog
	@mkdir -p .test
	@$(CLIENTS) --binary $(CORELOG) --totals .test/totals.clients

# Built here unless CORELOG names another.
corelog:
	@[ '$(origin CORELOG)' != file ] || cargo build --release --bin corelog

test-kcat: corelog
	@$(CLIENTS) --binary $(CORELOG) kcat
test-python: corelog
	@$(CLIENTS) --binary $(CORELOG) confluent-kafka kafka-python
test-java: corelog
	@$(CLIENTS) --binary $(CORELOG) java
test-node: corelog
	@$(CLIENTS) --binary $(CORELOG) kafkajs
test-go: corelog
	@$(CLIENTS) --binary $(CORELOG) go

test-kafka:
	@$(CLIENTS) --broker kafka

fetch-clients:
	@$(CLIENTS) --prepare-only

# Without debug sections a binary has a seventh of its size (corelog: 64 MB, 9 MB). They stand beside it: gdb, perf and the
# backtrace of a panic find them there by the link. The symbol table stays, for profiles without them.
dist:
	@cargo build --release
	@mkdir -p target/dist; for binary in corelog corectl corebench; do \
	  objcopy --only-keep-debug target/release/$$binary target/dist/$$binary.debug && \
	  objcopy --strip-debug target/release/$$binary target/dist/$$binary && \
	  (cd target/dist && objcopy --add-gnu-debuglink=$$binary.debug $$binary) || exit 1; \
	done; ls -l target/dist

lint: fmt clippy layers deny

fmt:
	cargo fmt --all --check

clippy:
	cargo clippy --workspace --all-targets -- -D warnings

# The runtime is named in storage/io alone: code elsewhere that reaches around the seam cannot be simulated.
layers:
	@! git grep -nE '\b(glommio|io_uring)::' -- '*.rs' ':!storage/io/' || { echo 'glommio or io_uring named outside storage/io/'; exit 1; }
	@! git grep -nE '\btokio::' -- broker/src storage ':!broker/src/process.rs' ':!broker/src/admin/' || { echo 'in the broker tokio is for process.rs and admin/'; exit 1; }
	@! git grep -nE '\bcorelog_(storage|io|raft)\b' -- client/src client/wire bench/src tools/src ':!client/wire/fuzz' ':!tools/src/log/' ':!tools/src/tune/' || { echo 'client, bench and tools know nothing of storage, but for corectl log and what corectl tune compares itself with'; exit 1; }
	@! git grep -nE '\b(Instant|SystemTime)::now|\bRandomState\b|collections::.*\bHash(Map|Set)\b' -- client/src ':!client/src/driver/' ':!client/src/hashing.rs' || { echo 'in client/: take time and chance from driver/, hash maps from hashing.rs: the simulation has its own'; exit 1; }

# The advisory database is fetched from outside. Where it cannot be, the rest is still checked, and this says so.
deny: .test/bin/cargo-deny
	@PATH="$$PWD/.test/bin:$$PATH" cargo deny --workspace check bans licenses sources
	@if PATH="$$PWD/.test/bin:$$PATH" timeout 120 cargo deny fetch db > .test/deny-db.log 2>&1; then \
	  PATH="$$PWD/.test/bin:$$PATH" cargo deny --workspace check --disable-fetch advisories; \
	else echo 'advisories NOT checked: no advisory database here (.test/deny-db.log)'; fi

.test/bin/cargo-deny:
	@mkdir -p .test/bin
	@if command -v cargo-deny > /dev/null; then ln -sf "$$(command -v cargo-deny)" $@; \
	else cargo install --locked --root .test cargo-deny --version $(DENY_VERSION); fi

# Not part of `make test`: fuzzing wants a nightly toolchain, and finds what it finds when it does. What is learnt stays
# in each crate's fuzz/corpus/, a finding in fuzz/artifacts/. All targets run, whatever the first one finds.
SECONDS_EACH ?= 60
FUZZ_CRATES := client/wire storage broker

fuzz: .test/bin/cargo-fuzz
	@export PATH="$$PWD/.test/bin:$$PATH"; status=0; \
	for crate in $(FUZZ_CRATES); do \
	  for target in $$(cargo +nightly fuzz list --fuzz-dir $$crate/fuzz); do \
	    echo "== $$crate $$target"; \
	    cargo +nightly fuzz run --fuzz-dir $$crate/fuzz $$target -- \
	      -max_total_time=$(SECONDS_EACH) -rss_limit_mb=2048 -timeout=30 -print_final_stats=1 \
	      > .test/fuzz-$$target.log 2>&1 || { status=1; echo 'FAILED'; }; \
	    grep -aE '^stat::number_of_executed_units|DONE|SUMMARY|panicked|^error' .test/fuzz-$$target.log; \
	  done; \
	done; exit $$status

.test/bin/cargo-fuzz:
	@mkdir -p .test/bin
	@if command -v cargo-fuzz > /dev/null; then ln -sf "$$(command -v cargo-fuzz)" $@; \
	else cargo +nightly install --locked --root .test cargo-fuzz --version $(CARGO_FUZZ_VERSION); fi
