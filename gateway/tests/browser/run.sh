#!/usr/bin/env bash
# The playground, and a plain WebSocket, in headless Chromium against a node in development mode.
#
#   ROOMCAST_BIN=target/release/roomcast gateway/tests/browser/run.sh
#
# Needs node 20 and chromium (CHROMIUM names another binary). Screenshots go to
# artifacts/browser at the root of the repository, or to $ARTIFACTS.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${ROOMCAST_BIN:?set ROOMCAST_BIN to the roomcast binary}"
ROOMCAST_BIN=$(realpath "$ROOMCAST_BIN")
CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
: "${CHROMIUM:?install chromium, or set CHROMIUM to its binary}"
ARTIFACTS=${ARTIFACTS:-$here/../../../artifacts/browser}
mkdir -p "$ARTIFACTS"
NODE_LOGS=$(mktemp -d)
export ROOMCAST_BIN CHROMIUM ARTIFACTS NODE_LOGS
finish() {
  local status=$?
  [ "$status" -eq 0 ] || tail -n 200 "$NODE_LOGS"/*.log >&2
  rm -rf "$NODE_LOGS"
  exit "$status"
}
trap finish EXIT

stamp=$here/node_modules/.stamp
sum=$(sha256sum <"$here/package-lock.json")
if [ "$(cat "$stamp" 2>/dev/null)" != "$sum" ]; then
  (cd "$here" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
  echo "$sum" >"$stamp"
fi
cd "$here"
node --test --test-reporter=spec --test-timeout=60000 playground.test.mjs websocket.test.mjs
