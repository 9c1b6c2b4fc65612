#!/bin/sh
# Runs once, when the primary's data is made: replicas may ask for its log.
echo 'host replication all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
