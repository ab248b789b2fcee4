#!/bin/sh
# tests/with_extension.sh COMMAND [ARG...]: runs it with a server that has the extension pgwake_ddl, for tests.
#
# The server's programs look for what can be installed beside themselves. So copies of them, with the extension beside
# them, are a server of their own, and nothing is installed where the system has its own. PGWAKE_TEST_BINDIR names
# them. It is left as it is where it is set; and without the server's headers the tests of the extension say that they
# are skipped.
set -eu
if [ -n "${PGWAKE_TEST_BINDIR:-}" ] || [ ! -f "$(pg_config --includedir-server 2>/dev/null)/postgres.h" ]; then
    exec "$@"
fi
server=$(mktemp -d)
trap 'rm -rf "$server"' EXIT
trap 'exit 1' HUP INT TERM
# A server never runs as root: others may read it.
chmod 755 "$server"
for directory in "$(pg_config --sharedir)" "$(pg_config --pkglibdir)"; do
    mkdir -p "$server${directory%/*}"
    cp -rs "$directory" "$server${directory%/*}"
done
mkdir -p "$server$(pg_config --bindir)"
cp -r "$(pg_config --bindir)/." "$server$(pg_config --bindir)"
find "$server" -name 'pgwake_ddl*' -delete
cp -r "$(dirname "$0")/../ffi/extension" "$server/extension"
make -s -C "$server/extension" clean install DESTDIR="$server" >"$server/log" 2>&1 || { cat "$server/log" >&2; exit 1; }
PGWAKE_TEST_BINDIR="$server$(pg_config --bindir)"
export PGWAKE_TEST_BINDIR
"$@"
