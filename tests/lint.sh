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

say "texts cross into SQL by the types of src/catalog only"
# pgrx's String and &str are UTF-8 whatever the database's encoding is; so are its messages, unless src/error.rs makes them.
# shellcheck disable=SC2016 # it is perl's
raw=$(find src -name '*.rs' -print0 | xargs -0 perl -0777 -ne '
    while (/#\[pg_extern.*?\n(?:pub )?(?:unsafe )?fn \w+.*?\n?\}?[^{;]*?\{/gs) {
        my $signature = $&;
        $signature =~ s/#\[pg_extern\(sql = ".*?"\)\]//s;
        print "$ARGV: $1\n" while $signature =~ /(\b\w+\b[^\n]*(?:\bString\b|&str\b|&\x27\w+ str\b|\bCString\b|&CStr\b|\bJsonB?\b)[^\n]*)/g;
    }
    print "$ARGV: $&\n" while /\bname!\([^)]*(?:\bString\b|&str\b|\bJsonB?\b)[^)]*\)/g;
')
[ -z "$raw" ] || { say "in the signature of an SQL function only Text may stand for a text:"; printf '%s\n' "$raw" >&2; exit 1; }
raw=$(grep -rnE '\b(DatumWithOid|JsonB)\b|\b(log|info|notice|warning|error|debug[1-5]|ereport|FATAL|PANIC)!\(|ErrorReport::new' src | grep -vE '^src/error\.rs:' || true)
[ -z "$raw" ] || { say "arguments go through src/catalog/value.rs, messages through src/error.rs:"; printf '%s\n' "$raw" >&2; exit 1; }
# "C" compares bytes; a locale may take the digits of a segment's name for a number.
raw=$(grep -nE '^ +(segment_name|[a-z]+_wal_file|backup_history_file)\b' sql/tables.sql | grep -v 'COLLATE pg_catalog."C"' || true)
[ -z "$raw" ] || { say 'names of files are in the collation "C":'; printf '%s\n' "$raw" >&2; exit 1; }

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
