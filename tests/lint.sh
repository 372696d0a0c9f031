#!/usr/bin/env bash
# What can be checked without running anything. Called by make lint, which sets the environment.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=../pgrx-config/cache.env
. pgrx-config/cache.env
# shellcheck source=../pgrx-config/versions.env
. pgrx-config/versions.env

say() { printf 'lint: %s\n' "$*" >&2; }

say "one pgrx version"
grep -qx "pgrx = \"=$PGRX_VERSION\"" Cargo.toml || { say "Cargo.toml and pgrx-config/versions.env ($PGRX_VERSION) name different versions of pgrx"; exit 1; }

say "formatting"
cargo fmt --all --check

say "clippy, the crates and the tests"
cargo clippy --quiet --workspace --exclude pg_backstop --all-targets -- -D warnings
while read -r major config; do
    say "clippy, the extension for PostgreSQL $major"
    PGRX_PG_CONFIG_PATH=$config cargo clippy --quiet -p pg_backstop --no-default-features --features "pg$major" -- -D warnings
done <"$CACHE/servers"

say "licences and bans"
cargo deny --log-level error check --hide-inclusion-graph licenses bans sources
if timeout 120 cargo deny --log-level error fetch db 2>/dev/null; then
    say "advisories"
    cargo deny --log-level error check --disable-fetch --hide-inclusion-graph advisories
else
    say "the advisory database could not be fetched, so advisories were not checked"
fi

if command -v shellcheck >/dev/null; then
    say "shell scripts"
    shellcheck --external-sources --source-path=SCRIPTDIR pgrx-config/*.sh tests/*.sh .ci/run
else
    say "shellcheck is not installed, so shell scripts were not checked"
fi
say "done"
