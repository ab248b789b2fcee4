#!/bin/sh -e
# What a DROP costs without pgwake, with it, and with a handler, on a server that you may create databases on:
#
#     benches/before_drop.sh 'host=/tmp user=postgres' [ROUNDS]
#
# Each round drops 200 tables one by one, then a schema of 1,000 tables, in each of three or four databases in
# turn; all of it is in milliseconds, the median of the rounds. Where the server has the extension pgwake_ddl
# there are four, because the mode sql is measured, too. PGWAKE names the command (default: that of PATH).
server=$1 rounds=${2:-5} pgwake=${PGWAKE:-pgwake}
results=$(mktemp) && trap 'rm -f "$results"' EXIT
psql="psql -XAtq -v ON_ERROR_STOP=1"
on() { echo "$server dbname=before_drop_$1"; }

has_extension=$($psql "$server dbname=postgres" \
    -c "SELECT count(*) FROM pg_available_extensions WHERE name = 'pgwake_ddl'")
variants="none installed sql"
[ "$has_extension" = 0 ] || variants="$variants extension"
for variant in $variants; do
    $psql "$server dbname=postgres" -c "DROP DATABASE IF EXISTS before_drop_$variant" \
        -c "CREATE DATABASE before_drop_$variant" 2>/dev/null
    [ "$variant" = none ] || "$pgwake" -d "$(on "$variant")" install
    [ "$variant" != sql ] || $psql "$(on sql)" -c "DROP EXTENSION IF EXISTS pgwake_ddl" 2>/dev/null
    case $variant in sql | extension)
        $psql "$(on "$variant")" -c "CREATE FUNCTION nothing(pgwake.ddl_target) RETURNS void LANGUAGE plpgsql
            AS 'BEGIN END'"
        "$pgwake" -d "$(on "$variant")" before-drop nothing
        echo "a handler that does nothing, mode $($psql "$(on "$variant")" -c 'SELECT pgwake.mode()')" >&2
    esac
done

measure() {
    $psql "$(on "$1")" <<'SQL'
SET client_min_messages = warning;
SELECT format('CREATE TABLE t%s (id int PRIMARY KEY)', i) FROM generate_series(1, 200) i \gexec
SELECT clock_timestamp() AS begun \gset
SELECT format('DROP TABLE t%s', i) FROM generate_series(1, 200) i \gexec
SELECT 'one table', round(extract(epoch FROM clock_timestamp() - :'begun') * 1000 / 200, 3);
CREATE SCHEMA many;
SELECT format('CREATE TABLE many.t%s (id int)', i) FROM generate_series(1, 1000) i \gexec
SELECT clock_timestamp() AS begun \gset
DROP SCHEMA many CASCADE;
SELECT 'schema of 1000', round(extract(epoch FROM clock_timestamp() - :'begun') * 1000, 1);
SQL
}
for _ in $(seq "$rounds"); do
    for variant in $variants; do
        measure "$variant" | sed "s/^/$variant|/" >>"$results"
    done
done
for what in 'one table' 'schema of 1000'; do
    for variant in $variants; do
        grep "^$variant|$what|" "$results" | cut -d'|' -f3 | sort -n |
            awk -v what="$what" -v variant="$variant" '{ ms[NR] = $1 }
                END { printf "%-16s %-10s %10.3f ms\n", what, variant, ms[int((NR + 1) / 2)] }'
    done
done
for variant in $variants; do
    $psql "$server dbname=postgres" -c "DROP DATABASE before_drop_$variant"
done
