#!/bin/sh
# Makes the server's data when there are none, as the official image does it, and becomes the server.
set -eu

if [ "${1:-}" = postgres ] && ! [ -s "$PGDATA/PG_VERSION" ]; then
    password=${POSTGRES_PASSWORD:-}
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
        password=$(cat "$POSTGRES_PASSWORD_FILE")
    fi
    if [ -z "$password" ]; then
        echo "POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE has to be set." >&2
        exit 1
    fi
    user=${POSTGRES_USER:-postgres}
    database=${POSTGRES_DB:-$user}
    file=$(mktemp)
    printf '%s\n' "$password" >"$file"
    # shellcheck disable=SC2086  # options are words
    initdb --username="$user" --pwfile="$file" ${POSTGRES_INITDB_ARGS:-}
    rm "$file"
    printf '\nhost all all all scram-sha-256\n' >>"$PGDATA/pg_hba.conf"
    # On the socket only: nobody takes it for ready before it is.
    pg_ctl --pgdata="$PGDATA" --options="-c listen_addresses='' -c unix_socket_directories=/var/run/postgresql" --wait start
    if [ "$database" != postgres ]; then
        createdb --host=/var/run/postgresql --username="$user" --no-password --maintenance-db=postgres "$database"
    fi
    pg_ctl --pgdata="$PGDATA" --mode=fast --wait stop
fi
if [ "${1:-}" = postgres ]; then
    shift
    exec postgres -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql "$@"
fi
exec "$@"
