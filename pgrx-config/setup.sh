#!/usr/bin/env bash
# Provides what the verbs of the Makefile need: build tools, cargo-pgrx and PostgreSQL servers.
#
#   setup.sh                   the build tools, and the PostgreSQL majors that are there already (at least one)
#   setup.sh 15 17 18          these majors too: the distribution's package, else the packages of the Debian suite that
#                              versions.env names, unpacked with their own C library, else that suite's source package, built
#   setup.sh --pg-config PATH  the build tools, and the server that PATH belongs to
#   setup.sh --build-only      the build tools alone, for a server that the caller names
#   setup.sh --tool NAME       one more cargo tool (cargo-deny, cargo-fuzz)
#   setup.sh --peers           what archives WAL beside us in the tests: pgBackRest, Barman, the compressors' programs; and bindfs,
#                              a mount that can be made to hang
#
# Servers are used from private copies under the cache folder, so that trying pg_backstop never writes into a server
# that others use. The result is $CACHE/servers: one line "MAJOR PG_CONFIG" each, newest major first. A major between the oldest
# and the newest asked for that cannot be had is left out, and $CACHE/unavailable says why: one line "MAJOR REASON" each.
# Idempotent: when all is there it only looks.
set -euo pipefail
shopt -s inherit_errexit
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=versions.env
. "$here/versions.env"
# shellcheck source=cache.env
. "$here/cache.env"

# One run at a time: two would install the same packages and build in the same places.
if [ -z "${PG_BACKSTOP_SETTING_UP-}" ]; then
    mkdir -p "$CACHE"
    [ -w "$CACHE" ] || { echo "setup: $CACHE belongs to another user; set PG_BACKSTOP_CACHE to a folder of yours" >&2; exit 1; }
    flock --nonblock "$CACHE/setup.lock" true || echo "setup: waiting for another set-up to end" >&2
    PG_BACKSTOP_SETTING_UP=yes exec flock --close "$CACHE/setup.lock" "${BASH_SOURCE[0]}" "$@"
fi

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1; then sudo "$@"
    else die "this needs root, and sudo is not installed: $*"
    fi
}

# Before output goes to a log, where nobody would see the question.
ask_for_password() { [ "$(id -u)" -eq 0 ] || ! command -v sudo >/dev/null 2>&1 || sudo -v; }

package_installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

apt_lists_are_fresh=
apt_refresh() {
    [ -z "$apt_lists_are_fresh" ] || return 0
    with_progress "refreshing the package lists" "$CACHE/build/apt-update.log" as_root apt-get update -q
    apt_lists_are_fresh=yes
}

# Installs the packages that are missing among those named.
need_packages() {
    local missing=() package
    if command -v dpkg-query >/dev/null 2>&1; then
        for package in "$@"; do package_installed "$package" || missing+=("$package"); done
    else
        command -v clang >/dev/null 2>&1 && return 0
        die "this system has no apt. Install the counterparts of these Debian packages, then run again: $*"
    fi
    [ ${#missing[@]} -eq 0 ] && return 0
    ask_for_password
    apt_refresh
    with_progress "installing ${missing[*]}" "$CACHE/build/apt-install.log" \
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"
}

package_available() {
    command -v apt-cache >/dev/null 2>&1 || return 1
    # Read whole: a reader that leaves early fails apt-cache, and with it the pipe.
    known() { [[ $(LC_ALL=C apt-cache policy "$1" 2>/dev/null) =~ Candidate:\ [^\(] ]]; }
    known "$1" && return 0
    apt_refresh
    known "$1"
}

# Installing PostgreSQL on Debian makes and starts a cluster on port 5432; nobody asked for that one.
install_without_a_cluster() {
    local drop_in=/etc/postgresql-common/createcluster.d/pg_backstop.conf status=0
    need_packages postgresql-common
    as_root mkdir -p "${drop_in%/*}"
    echo 'create_main_cluster = false' | as_root tee "$drop_in" >/dev/null
    (need_packages "$@") || status=$?
    as_root rm -f "$drop_in"
    return $status
}

with_progress() {
    local what=$1 log=$2 started=$SECONDS pid
    shift 2
    "$@" >"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        if [ -t 2 ]; then printf '\rsetup: %s … %d s' "$what" $((SECONDS - started)) >&2; fi
        sleep 1
    done
    if [ -t 2 ]; then printf '\n' >&2; fi
    wait "$pid" || { tail -n 30 "$log" >&2; die "$what failed; the whole log is $log"; }
    say "$what: $((SECONDS - started)) s"
}

distribution_config() { echo "/usr/lib/postgresql/$1/bin/pg_config"; }
# The headers come with the server package's -dev companion.
distribution_has() { [ -x "/usr/lib/postgresql/$1/bin/postgres" ]; }

# Copies the server of pg_config $1 to $2, keeping the places of its directories relative to each other: PostgreSQL finds
# its library and share directories from where its program lies (src/port/path.c, make_relative_path).
copy_server() {
    local config=$1 copy=$2 origin bin share lib include stamp
    bin=$("$config" --bindir) share=$("$config" --sharedir) lib=$("$config" --pkglibdir)
    include=$("$config" --includedir-server)
    [ -x "$bin/postgres" ] || die "no server program beside $config ($bin/postgres): name the pg_config of a server installation"
    [ -f "$include/pg_config.h" ] || die "no server headers in $include: install the server's development package (Debian: postgresql-server-dev-NN)"
    stamp="$("$config" --version) $config $(stat -c %Y "$bin/postgres")"
    [ "$(cat "$copy/.origin" 2>/dev/null)" = "$stamp" ] && return 0
    origin=$(common_parent "$bin" "$share" "$lib" "$include")
    say "copying the server of $config to $copy"
    rm -rf "$copy"
    local directory
    for directory in "$bin" "$share" "$lib"; do
        mkdir -p "$copy/${directory#"$origin"/}"
        cp -a "$directory/." "$copy/${directory#"$origin"/}/"
    done
    # Only read by the compiler, never by the server.
    mkdir -p "$(dirname "$copy/${include#"$origin"/}")"
    ln -s "$include" "$copy/${include#"$origin"/}"
    # An extension of ours that the original has would hide what is built here.
    find "$copy" -name 'pg_backstop*' -delete
    printf '%s\n' "$stamp" >"$copy/.origin"
}

common_parent() {
    local parent=$1 path
    for path in "$@"; do
        while [ "${path#"$parent"/}" = "$path" ]; do parent=${parent%/*}; done
    done
    echo "$parent"
}

copied_config() { find "$1" -type f -name pg_config -path '*/bin/*' | head -n 1; }

# Runs apt-get as the machine has it, but with directories of its own below $1, and for Debian suite $2 alone; no package counts
# as installed. The rest are its arguments.
apt_of_suite() {
    local apt=$1 suite=$2
    shift 2
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" || return
    : >"$apt/status"
    printf '%s [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian %s main\n' \
        deb "$suite" deb-src "$suite" >"$apt/sources.list"
    apt-get -q -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache" \
        -o APT::Sandbox::User= -o Debug::NoLocking=1 \
        -o Acquire::Check-Valid-Until=false "$@" # A mirror may lag behind: its files are signed all the same.
}

# Fetches the source package $2 of Debian suite $1 into $CACHE/build/apt-$2/source.
fetch_source() {
    local suite=$1 package=$2 apt="$CACHE/build/apt-$2"
    mkdir -p "$apt/source"
    apt_of_suite "$apt" "$suite" update && cd "$apt/source" && apt_of_suite "$apt" "$suite" source --download-only "$package"
}

# Unpacks the source package $1 that was fetched, and prints where.
unpack_source() {
    local tree="$CACHE/build/$1"
    rm -rf "$tree"
    mkdir -p "$tree"
    tar -xf "$(find "$CACHE/build/apt-$1/source" -name "$1_*.orig.tar.*" ! -name '*.asc' | head -n 1)" -C "$tree" --strip-components=1
    echo "$tree"
}

# Fetches the packages of the server $2 of Debian suite $1 and of all that it depends on, the C library too, and its headers.
fetch_server_packages() {
    local suite=$1 major=$2 apt="$CACHE/build/apt-server-$2"
    mkdir -p "$apt/cache/archives"
    apt_of_suite "$apt" "$suite" update &&
        apt_of_suite "$apt" "$suite" install -y --download-only --no-install-recommends "postgresql-$major" &&
        cd "$apt/cache/archives" && apt_of_suite "$apt" "$suite" download "postgresql-server-dev-$major"
}

# Makes a server of the packages that were fetched that needs nothing of this machine's own libraries, which may be older. Only
# what the server uses is kept: PostgreSQL finds its directories from where its program lies.
assemble_server() {
    local major=$1 prefix=$2 tree="$CACHE/build/server-$1" package file directory loader
    rm -rf "$tree" "$prefix"
    mkdir -p "$tree" "$prefix/libraries"
    for package in "$CACHE/build/apt-server-$major"/cache/archives/*.deb; do dpkg -x "$package" "$tree" || return; done
    for directory in lib share include; do
        mkdir -p "$prefix/$directory/postgresql"
        cp -a "$tree/usr/$directory/postgresql/$major" "$prefix/$directory/postgresql/" || return
    done
    # Compiling to machine code is a library of 130 MB, and nothing here waits for it.
    rm -rf "$prefix/lib/postgresql/$major/lib"/{bitcode,llvmjit*}
    # Symbolic links lead from a library's name to its file, in the same directory.
    for directory in "$tree"/lib/*-linux-gnu "$tree"/usr/lib/*-linux-gnu; do
        [ ! -d "$directory" ] || find "$directory" -maxdepth 1 -name '*.so*' ! -name 'libLLVM*' -exec cp -a {} "$prefix/libraries/" \; || return
    done
    loader=$(patchelf --print-interpreter "$prefix/lib/postgresql/$major/bin/postgres") || return
    loader="$prefix/libraries/${loader##*/}"
    [ -x "$loader" ] || { echo "no loader at $loader"; return 1; }
    # Those two find the others.
    find "$prefix/lib/postgresql/$major" "$prefix/libraries" -type f ! -name "${loader##*/}" ! -name libc.so.6 -print |
        while IFS= read -r file; do
            case $(LC_ALL=C head -c 4 "$file" | tr -d '\0') in *ELF) ;; *) continue ;; esac
            patchelf --force-rpath --set-rpath "$prefix/libraries" "$file" || exit
            if patchelf --print-interpreter "$file" >/dev/null 2>&1; then patchelf --set-interpreter "$loader" "$file" || exit; fi
        done || return
    rm -rf "$tree"
    "$prefix/lib/postgresql/$major/bin/postgres" --version
}

unpack_server() {
    local major=$1 suite=$2 prefix="$CACHE/pg/$1"
    with_progress "fetching the packages of PostgreSQL $major of Debian $suite" "$CACHE/build/packages-$major.log" \
        fetch_server_packages "$suite" "$major"
    with_progress "putting PostgreSQL $major together" "$CACHE/build/assemble-$major.log" assemble_server "$major" "$prefix"
    rm -rf "$CACHE/build/apt-server-$major"
    touch "$prefix/.complete"
}

build_from_source() {
    local major=$1 suite=$2 package="postgresql-$1" prefix="$CACHE/pg/$1" tree
    need_packages gcc make bison flex perl libreadline-dev zlib1g-dev libicu-dev libssl-dev liblz4-dev libzstd-dev pkg-config xz-utils bzip2
    with_progress "fetching the source package $package of Debian $suite" "$CACHE/build/source-$major.log" fetch_source "$suite" "$package"
    tree=$(unpack_source "$package")
    rm -rf "$prefix"
    with_progress "building PostgreSQL $major" "$CACHE/build/$package.log" bash -c "
        cd '$tree' && ./configure --prefix='$prefix' --with-openssl --with-lz4 --with-zstd --with-icu &&
        make -s -j'$(nproc)' world-bin && make -s install-world-bin"
    rm -rf "$tree" "$CACHE/build/apt-$package"
    touch "$prefix/.complete"
}

# A major that this distribution has no package of. Each way ends this shell where it fails, so each has one of its own.
provide_from_suite() {
    local major=$1 suite_variable="PG_SUITE_$1" suite
    suite=${!suite_variable:-}
    [ -n "$suite" ] || die "PostgreSQL $major is no package of this distribution, and versions.env names no Debian suite for it; give another with PG_MAJORS or PG_CONFIG"
    command -v apt-get >/dev/null 2>&1 || die "PostgreSQL $major is not installed, and without apt it cannot be fetched: install it, or give PG_CONFIG"
    need_packages patchelf
    (unpack_server "$major" "$suite") && return 0
    say "the packages of PostgreSQL $major of Debian $suite cannot be used; trying its source package"
    (build_from_source "$major" "$suite") && return 0
    die "PostgreSQL $major cannot be had: neither the packages of Debian $suite could be unpacked nor its source package built; the logs are in $CACHE/build: packages-$major, assemble-$major, source-$major, postgresql-$major"
}

# Installs the packages of those programs that are not on the PATH. Each is named program[=package].
need_programs() {
    local missing=() each
    for each in "$@"; do command -v "${each%%=*}" >/dev/null 2>&1 || missing+=("${each##*=}"); done
    [ ${#missing[@]} -eq 0 ] && return 0
    command -v apt-get >/dev/null 2>&1 || die "this system has no apt. Install what gives these programs, then run again: ${missing[*]}"
    need_packages "${missing[@]}"
}

# pgBackRest reads and writes repositories of the PostgreSQL majors that it knows, and a distribution's is as old as its own
# PostgreSQL. One build of a newer one serves every major.
build_pgbackrest() {
    local program="$CACHE/tools/bin/pgbackrest" package=pgbackrest tree
    [ -x "$program" ] && [ "$(cat "$CACHE/tools/.pgbackrest" 2>/dev/null)" = "$PGBACKREST_VERSION" ] && return 0
    command -v apt-get >/dev/null 2>&1 || die "without apt pgBackRest cannot be fetched: put pgBackRest $PGBACKREST_VERSION at $program, and its version into $CACHE/tools/.pgbackrest"
    need_packages gcc meson ninja-build pkg-config python3 libpq-dev libssl-dev libxml2-dev liblz4-dev libzstd-dev libbz2-dev zlib1g-dev
    # shellcheck disable=SC2317 # with_progress calls it
    fetch() {
        mkdir -p "$CACHE/build/apt-$package/source" && cd "$CACHE/build/apt-$package/source" || return
        /usr/lib/apt/apt-helper -o APT::Sandbox::User= download-file \
            "http://deb.debian.org/debian/pool/main/p/pgbackrest/pgbackrest_$PGBACKREST_VERSION.orig.tar.gz" \
            "pgbackrest_$PGBACKREST_VERSION.orig.tar.gz" "SHA256:$PGBACKREST_SHA256" && return
        # Debian's pool drops what a suite has replaced.
        rm -f ./*
        fetch_source "$PGBACKREST_SOURCE_SUITE" "$package"
    }
    with_progress "fetching the source of pgBackRest" "$CACHE/build/apt-$package.log" fetch
    tree=$(unpack_source "$package")
    with_progress "building pgBackRest" "$CACHE/build/$package.log" bash -c "
        meson setup --buildtype=release -Dlibssh2=disabled '$tree.build' '$tree' && ninja -C '$tree.build' src/pgbackrest &&
        install -D '$tree.build/src/pgbackrest' '$program'"
    rm -rf "$tree" "$tree.build" "$CACHE/build/apt-$package"
    echo "$PGBACKREST_VERSION" >"$CACHE/tools/.pgbackrest"
}

# Debian's package barman makes a user and a cron job; its Python package is all of Barman but these.
need_barman() {
    local program="$CACHE/tools/bin/barman"
    [ -x "$program" ] || command -v barman >/dev/null 2>&1 && return 0
    command -v apt-get >/dev/null 2>&1 || die "this system has no apt. Install Barman, then run again"
    need_packages python3-barman
    mkdir -p "${program%/*}"
    printf '%s\n' '#!/usr/bin/python3' 'from barman.cli import main' 'main()' >"$program"
    chmod 755 "$program"
}

peers() {
    need_programs gzip bzip2 pigz xz=xz-utils zstd lz4 brotli bindfs
    need_barman
    build_pgbackrest
}

# Makes major $1 available, from wherever it can be had, and prints its pg_config.
provide() {
    local major=$1
    case " $PG_SUPPORTED " in *" $major "*) ;; *) die "PostgreSQL $major is not supported; supported: $PG_SUPPORTED" ;; esac
    if ! distribution_has "$major" && [ ! -f "$CACHE/pg/$major/.complete" ] && package_available "postgresql-$major"; then
        install_without_a_cluster "postgresql-$major"
    fi
    if distribution_has "$major"; then
        [ -f "/usr/include/postgresql/$major/server/pg_config.h" ] || need_packages "postgresql-server-dev-$major"
        copy_server "$(distribution_config "$major")" "$CACHE/pg/$major"
        copied_config "$CACHE/pg/$major"
    else
        [ -f "$CACHE/pg/$major/.complete" ] || provide_from_suite "$major"
        copied_config "$CACHE/pg/$major"
    fi
}

installed_majors() {
    local major
    for major in $PG_SUPPORTED; do
        if distribution_has "$major" || [ -f "$CACHE/pg/$major/.complete" ]; then echo "$major"; fi
    done
}

cargo_tool() {
    local tool=$1 version=$2 have
    have=$(cat "$CACHE/tools/.$tool" 2>/dev/null || true)
    [ "$have" = "$version" ] && [ -x "$CACHE/tools/bin/$tool" ] && return 0
    command -v cargo >/dev/null 2>&1 || die "cargo was not found: install Rust from https://rustup.rs"
    # Built away from this checkout, so that its toolchain file and lock file have no say.
    with_progress "building $tool $version" "$CACHE/build/$tool.log" \
        env -C / CARGO_TARGET_DIR="$CACHE/build/$tool" cargo install --quiet --locked --force --root "$CACHE/tools" "$tool@$version"
    rm -rf "${CACHE:?}/build/$tool"
    echo "$version" >"$CACHE/tools/.$tool"
}

# Where cargo-pgrx and pgrx's build script look for servers. Written only when it changes, because they build anew then.
write_pgrx_config() {
    local text
    text=$(echo '[configs]'; sed -E 's/^([0-9]+) (.*)/pg\1 = "\2"/' "$CACHE/servers")
    [ "$(cat "$CACHE/pgrx/config.toml" 2>/dev/null)" = "$text" ] || printf '%s\n' "$text" >"$CACHE/pgrx/config.toml"
}

# The user that servers run as when we are root, since PostgreSQL refuses to run as root.
need_server_user() {
    [ "$(id -u)" -eq 0 ] || return 0
    id -u "$SERVER_USER" >/dev/null 2>&1 \
        || useradd --system --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin "$SERVER_USER"
}

build_tools() {
    need_packages gcc make clang libclang-dev libssl-dev pkg-config
    cargo_tool cargo-pgrx "$PGRX_VERSION"
}

# Cargo knows what it builds of a workspace by its place in the workspace, so that in a shared build cache another checkout's
# results would pass for this one's. What was built of dependencies stays.
claim_build_cache() {
    local target=${CARGO_TARGET_DIR:-} root=${here%/*} member
    case $target in "$CACHE"/*) ;; *) return 0 ;; esac
    [ "$(cat "$target/.checkout" 2>/dev/null)" = "$root" ] && return 0
    for member in pg_backstop tests $(cd "$root/crates" && echo *); do
        rm -rf "$target"/*/.fingerprint/"$member"-*
    done
    mkdir -p "$target"
    echo "$root" >"$target/.checkout"
}

main() {
    mkdir -p "$CACHE/build" "$CACHE/pg" "$CACHE/tools" "$CACHE/pgrx"
    chmod 755 "$CACHE"
    claim_build_cache
    case "${1:-}" in
    --tool)
        # libFuzzer is C++.
        [ "$2" != cargo-fuzz ] || need_packages g++
        local version_variable
        version_variable=$(echo "${2:?name a tool}_VERSION" | tr 'a-z-' 'A-Z_')
        cargo_tool "$2" "${!version_variable:?no version of $2 in versions.env}"
        return 0 ;;
    --build-only)
        build_tools
        return 0 ;;
    --peers)
        peers
        return 0 ;;
    esac
    need_server_user
    local servers='' majors major config copy
    if [ "${1:-}" = --pg-config ]; then
        config=${2:?name a pg_config}
        [ -x "$config" ] || die "$config is not a program: give the path of a pg_config"
        major=$("$config" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
        case " $PG_SUPPORTED " in *" $major "*) ;; *) die "$config is of PostgreSQL $major; supported: $PG_SUPPORTED" ;; esac
        build_tools
        copy="$CACHE/pg/custom-$(printf '%s' "$config" | cksum | cut -d' ' -f1)"
        copy_server "$config" "$copy"
        servers="$major $(copied_config "$copy")"
    else
        build_tools
        majors=$({ printf '%s\n' "$@"; installed_majors; } | sed '/^$/d' | sort -rnu)
        if [ -z "$majors" ]; then
            for major in $(tr ' ' '\n' <<<"$PG_SUPPORTED" | sort -rn); do
                if package_available "postgresql-$major"; then majors=$major; break; fi
            done
        fi
        [ -n "$majors" ] || majors=$(tr ' ' '\n' <<<"$PG_SUPPORTED" | sort -rn | head -n 1)
        : >"$CACHE/unavailable"
        for major in $majors; do
            if config=$(provide "$major"); then
                servers+="$major $config"$'\n'
            elif [ "$major" != "${majors%%$'\n'*}" ] && [ "$major" != "${majors##*$'\n'}" ]; then
                echo "$major neither the packages nor the source package of Debian could be had; see above" >>"$CACHE/unavailable"
            else
                exit 1
            fi
        done
    fi
    printf '%s\n' "$servers" | sed '/^$/d' >"$CACHE/servers"
    # A server named for once does not count: the list of the others would be lost, and all would be built anew.
    if [ "${1:-}" != --pg-config ] || [ ! -f "$CACHE/pgrx/config.toml" ]; then write_pgrx_config; fi
}

main "$@"
