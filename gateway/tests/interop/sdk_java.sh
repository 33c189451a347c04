#!/usr/bin/env bash
# The official SDK for Java and Spring's WebSocket client, on a node alone and on two nodes that share a Redis.
#
#   ROOMCAST_BIN=target/release/roomcast gateway/tests/interop/sdk_java.sh
#
# Maven fetches what it needs, and keeps it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
INTEROP_STATE=$(mktemp -d)
export INTEROP_STATE
finish() {
  local status=$?
  [ "$status" -eq 0 ] || "$here/cluster.sh" logs >&2
  "$here/cluster.sh" down
  rm -rf "$INTEROP_STATE"
  exit "$status"
}
trap finish EXIT

# It ends with its input, which ends with this script.
coproc backend { exec node "$here/backend.mjs"; }
read -r -t 20 INTEROP_RPC_URL <&"${backend[0]}"
export INTEROP_RPC_URL

# on CLUSTER OPTION...: the tests that the options name.
on() {
  echo "The SDK for Java and Spring, $1"
  shift
  . "$INTEROP_STATE/env"
  timeout --kill-after=5 600 mvn -B -ntp --strict-checksums -f "$here/java" test "$@"
}
"$here/cluster.sh" up alone
# What is in memory does not outlive its node, and the examples need to be run but once.
on "one node, memory" '-Dtest=!NodeEndTest,!ExampleTest'
"$here/cluster.sh" down
"$here/cluster.sh" up
on "two nodes, Redis"
