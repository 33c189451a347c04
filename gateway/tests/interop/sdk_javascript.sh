#!/usr/bin/env bash
# The cases of the official SDK for JavaScript and its features, each on a node alone and on two nodes that share a Redis.
#
#   ROOMCAST_BIN=target/release/roomcast gateway/tests/interop/sdk_javascript.sh
#
# run.sh calls it when it has installed what it needs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
# Nothing here waits for a ping, and a machine that is busy may take its time to answer one.
export INTEROP_PING=25s INTEROP_PONG=20s

# on CLUSTER SETTINGS SUITE...: nodes of their own for some suites; one alone where CLUSTER is `alone`.
on() (
  export INTEROP_ROOMS=$2 INTEROP_STATE
  INTEROP_STATE=$(mktemp -d)
  finish() {
    local status=$?
    [ "$status" -eq 0 ] || ./cluster.sh logs >&2
    ./cluster.sh down
    rm -rf "$INTEROP_STATE"
    exit "$status"
  }
  trap finish EXIT
  ./cluster.sh up "$1"
  . "$INTEROP_STATE/env"
  node --test --test-reporter=spec --test-timeout=120000 "${@:3}"
)

failed=0
for cluster in alone cluster; do
  on "$cluster" sdk-javascript-open.toml sdk_client.test.mjs sdk_recovery.test.mjs &
  open=$!
  on "$cluster" sdk-javascript.toml sdk_rooms.test.mjs &
  wait $! || failed=1
  wait "$open" || failed=1
done
exit "$failed"
