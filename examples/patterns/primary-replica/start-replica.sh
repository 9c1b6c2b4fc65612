#!/bin/sh
# Copies the primary once it answers, then follows it.
set -eu
export PGDATA="${PGDATA:-/var/lib/postgresql/data}"
PGPASSWORD=$(cat /run/secrets/db_password)
export PGPASSWORD
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$PGDATA"
  # It takes away what it began when it fails.
  until pg_basebackup -h "$POSTGRES_MASTER_HOST" -U postgres -D "$PGDATA" -R -X stream -c fast; do
    sleep 1
  done
  chown -R postgres "$PGDATA"
  chmod 700 "$PGDATA"
fi
exec gosu postgres postgres
