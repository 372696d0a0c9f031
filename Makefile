# The only verbs, for people and CI alike. Each one first sets up what it misses (pgrx-config/setup.sh).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help demo build install test lint bench fault-bench fuzz clean

# A server of the caller's choice, and the PostgreSQL majors to test; both may be empty.
PG_CONFIG ?=
PG_MAJORS ?=
FUZZ_SECONDS ?= 600
unexport PG_CONFIG

CACHE := $(shell . ./pgrx-config/cache.env && echo "$$CACHE")
export CARGO_TARGET_DIR ?= $(CACHE)/target
export PGRX_HOME := $(CACHE)/pgrx
export PATH := $(CACHE)/tools/bin:$(PATH)

SETUP := pgrx-config/setup.sh
RUN := tests/run.sh

help:
	@cat <<'TEXT'
	make demo         shows the whole job on a throw-away cluster        [PG_CONFIG=/path/to/pg_config]
	make build        builds the release for the newest PostgreSQL here  [PG_CONFIG=…]
	make install      builds the release and installs it into a server   PG_CONFIG=…
	make test         all tests on every supported PostgreSQL here       [PG_MAJORS="15 17 18"] [PG_CONFIG=…]
	make lint         formatting, clippy, licences, shell scripts
	make bench        speed as ratios against peers on the same work     [PG_CONFIG=…]
	make fault-bench  what pg_backstop and its peers say of each fault   [PG_CONFIG=…]
	make fuzz         the fuzz targets                                   [FUZZ_SECONDS=600]
	make clean        removes what was built; servers and tools stay in $(CACHE)
	TEXT

demo bench fault-bench:
	@$(RUN) $@ '$(PG_CONFIG)'

test:
	@$(RUN) test '$(PG_CONFIG)' $(PG_MAJORS)

# The release lands below target/release as a tree of the files to install. The paths in it are the server's own, so a build
# without PG_CONFIG is for the private copy of the newest server.
build:
	@config='$(PG_CONFIG)'
	if [ -n "$$config" ]; then $(SETUP) --build-only
	else $(SETUP); config=$$(sed -n '1s/^[0-9]* //p' '$(CACHE)/servers')
	fi
	$(RUN) package "$$config"

install:
	@config='$(PG_CONFIG)'
	if [ -z "$$config" ]; then
		config=$$(command -v pg_config) || { echo 'install: which server? Say make install PG_CONFIG=/path/to/its/pg_config' >&2; exit 1; }
		echo "install: PG_CONFIG is not given, so this is for the server of $$config"
	fi
	$(SETUP) --build-only
	$(RUN) package "$$config"
	$(RUN) install "$$config"

lint:
	@$(SETUP) $(PG_MAJORS)
	$(SETUP) --tool cargo-deny
	tests/lint.sh

fuzz:
	@$(SETUP) --tool cargo-fuzz
	for crate in wal archive; do
		cd '$(CURDIR)'/crates/$$crate
		for target in $$(cargo +nightly fuzz list); do
			echo "fuzz: $$target, $(FUZZ_SECONDS) s"
			mkdir -p '$(CACHE)'/fuzz/$$target
			cargo +nightly fuzz run $$target '$(CACHE)'/fuzz/$$target fuzz/seeds -- -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1
		done
	done

clean:
	@cargo clean
	echo 'Servers and tools are in $(CACHE); remove that folder to be rid of them too.'
