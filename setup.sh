#!/bin/sh
# setup.sh [--demo | --test | --deb]: sees to it that pgwake can be built; with --demo, that its demo runs, too, with
# --test its tests, and with --deb, that a Debian package can be made, but for cargo-deb.
# Installs what is missing when it may (root or passwordless sudo, Debian or Ubuntu), and names it in one line when
# it may not. Does nothing, and needs no rights, when nothing is missing.
set -eu

PATH=$PATH:$HOME/.cargo/bin
missing='' packages=''
need() { missing="$missing${missing:+, }$1" packages="$packages $2"; }

has_server() {
    for directory in $(echo "$PATH" | tr ':' ' ') "$(pg_config --bindir 2>/dev/null)" \
        /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql/bin; do
        [ -x "$directory/initdb" ] && [ -x "$directory/postgres" ] && return 0
    done
    return 1
}
# PostgreSQL's own makefile for extensions comes without them, too.
has_server_headers() { [ -f "$(pg_config --includedir-server 2>/dev/null)/postgres.h" ]; }
has_library() { command -v pkg-config >/dev/null && pkg-config --exists "$1"; }

command -v cc >/dev/null || need 'a C compiler' 'gcc libc6-dev'
command -v pkg-config >/dev/null || need 'pkg-config' 'pkg-config'
has_library openssl || need 'the headers of OpenSSL' 'libssl-dev'
case "${1:-}" in
--demo | --test) has_server || need 'a PostgreSQL server' 'postgresql' ;;
# Without it cargo-deb makes a package that depends on nothing.
--deb) command -v dpkg-shlibdeps >/dev/null || need 'dpkg-shlibdeps' 'dpkg-dev' ;;
esac
if [ "${1:-}" = --test ]; then
    has_library libpq || need 'the headers of libpq' 'libpq-dev'
    has_server_headers || need 'the headers of the server' 'postgresql-server-dev-all'
    has_library libuv || need 'the headers of libuv' 'libuv1-dev'
    echo '#include <ev.h>' | cc -E - >/dev/null 2>&1 || need 'the headers of libev' 'libev-dev'
    command -v c++ >/dev/null || need 'a C++ compiler' 'g++'
    command -v make >/dev/null || need 'make' 'make'
    command -v cmake >/dev/null || need 'CMake' 'cmake'
    command -v meson >/dev/null || need 'Meson' 'meson'
    command -v valgrind >/dev/null || need 'valgrind' 'valgrind'
    command -v python3 >/dev/null || need 'Python' 'python3'
    command -v jq >/dev/null || need 'jq' 'jq'
fi
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$(dirname "$0")/Cargo.toml")
found=$(cargo --version 2>/dev/null | cut -d ' ' -f 2)
if [ "$(printf '%s\n' "$needed" "$found" | sort -V | head -n 1)" != "$needed" ]; then
    echo "pgwake: Rust $needed or later is needed, ${found:-none} was found: install it with rustup," \
        'then call this again' >&2
    exit 1
fi
[ -n "$missing" ] || exit 0

as_root=''
if [ "$(id -u)" != 0 ]; then
    as_root='sudo -n'
    sudo -n true 2>/dev/null || as_root=no
fi
if [ "$as_root" = no ] || ! command -v apt-get >/dev/null; then
    echo "pgwake: missing: $missing; on Debian or Ubuntu: sudo apt-get install$packages" >&2
    exit 1
fi

echo "pgwake: installing $missing …" >&2
# Debian's package would make and start a server of its own; only its programs are wanted here.
if ! [ -e /etc/postgresql-common/createcluster.conf ]; then
    $as_root mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' | $as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
$as_root apt-get -qq update
# shellcheck disable=SC2086 # each word is a package
DEBIAN_FRONTEND=noninteractive $as_root apt-get -qq install --no-install-recommends $packages >/dev/null
