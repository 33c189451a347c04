#!/usr/bin/env bash
# The description of the server API, as a node serves it, held against that node by schemathesis.
#
#   ROOMCAST_BIN=target/debug/roomcast gateway/tests/openapi/run.sh
#
# Needs python3 with venv, and redis-server. What else it uses is installed beside this file on the first run.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${ROOMCAST_BIN:?set ROOMCAST_BIN to the roomcast binary}"
ROOMCAST_BIN=$(realpath "$ROOMCAST_BIN")
export ROOMCAST_BIN

sum=$(sha256sum <"$here/requirements.txt")
if [ "$(cat "$here/.venv/.stamp" 2>/dev/null)" != "$sum" ]; then
  python3 -m venv --clear "$here/.venv"
  "$here/.venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
  echo "$sum" >"$here/.venv/.stamp"
fi
cd "$here"
exec .venv/bin/python -m pytest -p no:cacheprovider -q "$@" test_openapi.py
