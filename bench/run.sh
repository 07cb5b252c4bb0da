#!/usr/bin/env bash
# Builds the node and the load, installs the peer, and measures the two by
# turns. Arguments go to the load; -h lists them.
set -euo pipefail
cd "$(dirname "$0")"

# 10,000 connections need as many descriptors on either side.
ulimit -n "$(ulimit -Hn)"

if ! command -v redis-server >/dev/null; then
	echo "bench: a cluster needs redis-server; make setup or apt-get install redis-server gets it" >&2
	exit 1
fi
go build -C .. -o bench/bin/rejoin ./cmd/node
go build -o bin/load ./load
if [[ ! peer/node_modules/.package-lock.json -nt peer/package-lock.json ]]; then
	npm ci --prefix peer --no-audit --no-fund >&2
fi

exec bin/load -node bin/rejoin -peer peer -out results/latest.json "$@"
