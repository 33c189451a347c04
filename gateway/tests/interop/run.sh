#!/usr/bin/env bash
# Official SDKs and clients without a library against two nodes sharing one Redis.
#
#   ROOMCAST_BIN=target/release/roomcast gateway/tests/interop/run.sh
#
# Needs node 20, python3 with venv, go, javac and mvn, and redis-server. What
# else the suites use is installed on the first run, beside this file or where
# go and Maven keep what they fetch.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${ROOMCAST_BIN:?set ROOMCAST_BIN to the roomcast binary}"
ROOMCAST_BIN=$(realpath "$ROOMCAST_BIN")
export ROOMCAST_BIN

# install_once STAMP SOURCE COMMAND: runs the command unless it ran for this very source.
install_once() {
  local stamp=$1 sum
  sum=$(sha256sum <"$2")
  if [ "$(cat "$stamp" 2>/dev/null)" != "$sum" ]; then
    "$3"
    echo "$sum" >"$stamp"
  fi
}
install_node() { (cd "$here" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error); }
install_python() {
  python3 -m venv --clear "$here/.venv"
  "$here/.venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
}
# The package index gives the tests of the SDK with its source alone, which hatchling has to look at.
install_sdk_python() {
  local archive
  archive=$(mktemp -d)
  "$here/.venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --no-binary :all: --no-build-isolation \
    --require-hashes -d "$archive" -r "$here/sdk-python.txt"
  rm -rf "$here/.sdk-python"
  mkdir "$here/.sdk-python"
  tar -xzf "$archive"/*.tar.gz -C "$here/.sdk-python" --strip-components=1
  rm -rf "$archive"
}
install_go() { (cd "$here/go" && go mod download); }
installing=()
install_once "$here/node_modules/.stamp" "$here/package-lock.json" install_node & installing+=("$!")
install_once "$here/go/.stamp" "$here/go/go.sum" install_go & installing+=("$!")
install_once "$here/.venv/.stamp" "$here/requirements.txt" install_python
install_once "$here/.sdk-python/.stamp" "$here/sdk-python.txt" install_sdk_python
for pid in "${installing[@]}"; do wait "$pid"; done

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

"$here/cluster.sh" up
. "$INTEROP_STATE/env"
cd "$here"
failed=0
suite() { "$@" || failed=1; }
# What does not stop a node runs side by side; each is heard when it has ended.
names=() pids=()
alongside() {
  local name=$1
  shift
  "$@" >"$INTEROP_STATE/$name.out" 2>&1 &
  names+=("$name") pids+=("$!")
}
collect() {
  local i
  for i in "${!names[@]}"; do
    echo "=== ${names[i]}"
    wait "${pids[i]}" || { failed=1; echo "FAILED: ${names[i]}" >>"$INTEROP_STATE/${names[i]}.out"; }
    cat "$INTEROP_STATE/${names[i]}.out"
  done
}
# Not from Go's cache of results: the nodes are not among what it looks at.
alongside go go -C go test -count=1 -timeout 5m -v ./...
alongside sdk-java ./sdk_java.sh
alongside sdk-javascript ./sdk_javascript.sh
alongside sdk-python ./sdk_python.sh
alongside clients .venv/bin/python -m unittest -v test_clients
alongside cent .venv/bin/python -m unittest -v test_cent
suite node --test --test-reporter=spec --test-timeout=60000 \
  clients.test.mjs streams.test.mjs listeners.test.mjs examples.test.mjs
collect
# These stop a node, so they run alone.
suite node --test --test-reporter=spec --test-timeout=60000 reconnect.test.mjs
suite .venv/bin/python -m unittest -v test_reconnect
exit "$failed"
