#!/usr/bin/env bash
# The own tests of the official SDK for Python, on a node alone and on two nodes that share a Redis.
#
#   ROOMCAST_BIN=target/release/roomcast gateway/tests/interop/sdk_python.sh
#
# run.sh calls it when it has installed what it needs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
INTEROP_STATE=$(mktemp -d)
export INTEROP_STATE INTEROP_ROOMS=sdk-python.toml
# The tests sign their tokens with it.
export INTEROP_SECRET=secret
finish() {
  local status=$?
  [ "$status" -eq 0 ] || "$here/cluster.sh" logs >&2
  "$here/cluster.sh" down
  rm -rf "$INTEROP_STATE"
  exit "$status"
}
trap finish EXIT

# on CLUSTER ADDRESS...: a client that waits for what does not come waits for ever, hence the limit.
on() {
  echo "The SDK's own tests, $1"
  shift
  timeout --kill-after=5 180 "$here/.venv/bin/python" "$here/sdk_suite.py" "$here/.sdk-python" "$@"
}
"$here/cluster.sh" up alone
. "$INTEROP_STATE/env"
on "one node, memory" "$INTEROP_A"
"$here/cluster.sh" down
"$here/cluster.sh" up
. "$INTEROP_STATE/env"
on "two nodes, Redis" "$INTEROP_A" "$INTEROP_B"
