#!/usr/bin/env bash
# The verbs of the Makefile that need the extension in a server. Called by make, which sets the environment.
#
#   run.sh test PG_CONFIG [MAJOR…]   all tests; an empty PG_CONFIG means every server here, or those majors
#   run.sh demo|bench|fault-bench PG_CONFIG
#                                    the program of that name; an empty PG_CONFIG means the newest server here
#   run.sh package PG_CONFIG         the release as a tree of the files to install
#   run.sh install PG_CONFIG         copies that tree into the server
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=${here%/*}
# shellcheck source=../pgrx-config/cache.env
. "$root/pgrx-config/cache.env"
cd "$root"
# What a failed test says is its message; the backtrace of an error value is the harness's own.
export RUST_LIB_BACKTRACE=0

say() { printf '%s: %s\n' "$verb" "$*" >&2; }
die() { say "$*"; exit 1; }

verb=${1:?a verb}
pg_config=${2-}
shift 2 || shift

# What is installed into the private copies of the servers is there for one run at a time.
one_at_a_time() {
    [ -z "${PG_BACKSTOP_RUNNING-}" ] || return 0
    mkdir -p "$CACHE"
    [ -w "$CACHE" ] || die "$CACHE is not writable: it belongs to another user; set PG_BACKSTOP_CACHE to a folder of yours"
    if ! flock --nonblock "$CACHE/run.lock" true; then say "waiting for another run to end"; fi
    PG_BACKSTOP_RUNNING=yes exec flock --close "$CACHE/run.lock" "${BASH_SOURCE[0]}" "$verb" "$pg_config" "$@"
}

major_of() { "$1" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/'; }

# Runs a cargo-pgrx command for the server of pg_config $1.
for_server() {
    local config=$1 command=$2 major
    shift 2
    major=$(major_of "$config")
    PGRX_PG_CONFIG_PATH=$config cargo pgrx "$command" --package pg_backstop --pg-config "$config" \
        --no-default-features --features "pg$major" "$@" </dev/null
}

set_up() {
    if [ -n "$pg_config" ]; then pgrx-config/setup.sh --pg-config "$pg_config"; else pgrx-config/setup.sh "$@"; fi
}

newest_server() { sed -n '1s/^[0-9]* //p' "$CACHE/servers"; }

package_tree() { echo "$CARGO_TARGET_DIR/release/pg_backstop-pg$(major_of "$pg_config")"; }

run_package() {
    [ -x "$pg_config" ] || die "$pg_config is not a program: give the path of a pg_config"
    local headers
    headers=$("$pg_config" --includedir-server)
    [ -f "$headers/pg_config.h" ] || die "no server headers in $headers: install the server's development package (Debian: postgresql-server-dev-$(major_of "$pg_config"))"
    rm -rf "$(package_tree)"
    for_server "$pg_config" package
    say "the files to install are in $(package_tree)"
}

# `install` replaces a file by a new one, so that a running server keeps the library that it has loaded.
run_install() {
    local tree file as_root=()
    tree=$(package_tree)
    if [ ! -w "$("$pg_config" --pkglibdir)" ] || [ ! -w "$("$pg_config" --sharedir)/extension" ]; then
        command -v sudo >/dev/null || die "the directories of $pg_config are not writable, and sudo is not installed: run this as root"
        as_root=(sudo)
    fi
    while IFS= read -r file; do
        "${as_root[@]}" install -D -m "$(case $file in *.so) echo 755 ;; *) echo 644 ;; esac)" "$tree/$file" "/$file"
        say "/$file"
    done < <(cd "$tree" && find . -type f -printf '%P\n')
    cat <<TEXT
pg_backstop is installed for $("$pg_config" --version). Next, in that server:
  1. ALTER SYSTEM SET shared_preload_libraries = 'pg_backstop';   (with what is there already), then restart it
  2. CREATE EXTENSION pg_backstop;   in the database postgres, or the one that pg_backstop.database names
  3. SELECT * FROM recovery_readiness;
TEXT
}

run_test() {
    one_at_a_time "$@"
    set_up "$@"
    pgrx-config/setup.sh --peers
    # A test mostly waits: for a server to start, for a worker's tick.
    export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((2 * $(nproc)))}
    local log said status=0 major config crates=() crate
    log=$(mktemp)
    said=$(mktemp -d)
    # shellcheck disable=SC2064
    trap "rm -rf '$log' '$said'" EXIT
    tested() {
        local before after
        before=$(grep -c '^test result: FAILED' "$log" || true)
        if ! cargo test --no-fail-fast "$@" </dev/null 2>&1 | tee -a "$log"; then
            status=1
            after=$(grep -c '^test result: FAILED' "$log" || true)
            # What does not compile or crashes has no result line of its own.
            [ "$before" -ne "$after" ] || echo 'test result: FAILED. 0 passed; 1 failed; it did not run to its end' | tee -a "$log"
        fi
    }
    # Each file of tests is a program of its own: two run at once, and each is shown when it is done. Arguments are theirs.
    tested_files() {
        local file files=()
        for file in tests/tests/*.rs; do files+=("$(basename "$file" .rs)"); done
        tested -p tests --no-run
        tested -p tests --lib --bins
        tested -p tests --doc
        # shellcheck disable=SC2016
        printf '%s\n' "${files[@]}" | xargs -P 2 -I{} bash -c '
            said=$1/$2 file=$2
            shift 2
            cargo test -p tests --test "$file" "$@" >"$said" 2>&1 </dev/null || true
            grep -q "^test result:" "$said" || echo "test result: FAILED. 0 passed; 1 failed; $file did not run to its end" >>"$said"
            flock "${said%/*}" cat "$said"' tested_file "$said" {} "$@" | tee -a "$log"
        if grep -q '^test result: FAILED' "$log"; then status=1; fi
    }
    for crate in crates/*/; do crates+=(-p "$(basename "$crate")"); done
    say "the crates that need no server"
    tested "${crates[@]}"
    # What does not depend on the major is tested on one.
    local all=(-- --include-ignored)
    while read -r major config; do
        if [ $# -gt 0 ]; then case " $* " in *" $major "*) ;; *) continue ;; esac; fi
        say "PostgreSQL $major ($config)"
        if for_server "$config" install; then
            export PG_CONFIG=$config
            tested_files "${all[@]}"
            all=()
        else
            echo 'test result: FAILED. 0 passed; 1 failed; the extension did not build' | tee -a "$log"
            status=1
        fi
    done <"$CACHE/servers"
    sed -nE 's/^test result: [A-Za-z]+\. ([0-9]+) passed; ([0-9]+) failed.*/\1 \2/p' "$log" \
        | awk '{ passed += $1; failed += $2 } END { printf "%d passed, %d failed\n", passed, failed }'
    if [ -z "$pg_config" ]; then sed -E 's/^([0-9]+) (.*)/PostgreSQL \1 was NOT tested: \2/' "$CACHE/unavailable"; fi
    return "$status"
}

run_demo() {
    one_at_a_time
    set_up
    local config
    config=$(newest_server)
    for_server "$config" install
    PG_CONFIG=$config exec_built dev demo
}

run_bench() {
    one_at_a_time
    set_up
    pgrx-config/setup.sh --peers
    local config
    config=$(newest_server)
    for_server "$config" install --release
    PG_CONFIG=$config exec_built release bench
}

run_fault_bench() {
    one_at_a_time
    set_up
    pgrx-config/setup.sh --peers
    local config
    config=$(newest_server)
    for_server "$config" install
    PG_CONFIG=$config exec_built dev fault_bench
}

exec_built() { exec cargo run --quiet --profile "$1" -p tests --bin "$2"; }

case $verb in
test | demo | bench | package | install) "run_$verb" "$@" ;;
fault-bench) run_fault_bench ;;
*) die "unknown verb" ;;
esac
