#!/usr/bin/env bash
# The Autobahn test suite against the handshake, the frames and the compression of the gateway's WebSockets, which an example
# serves as an echo.
#
#   WS_ECHO_BIN=target/debug/examples/ws_echo gateway/tests/autobahn/run.sh [all]
#
# Needs python3 with venv; what the suite is made of is installed beside this file on the first run. With `all` the long
# messages of the compressed groups are sent too (two minutes).
set -euo pipefail
cd "$(dirname "$0")"
: "${WS_ECHO_BIN:?set WS_ECHO_BIN to the example ws_echo}"
compressed=deflate
if [ "${1:-}" = all ]; then compressed=deflate-all; fi

if [ "$(cat .venv/.stamp 2>/dev/null)" != "$(sha256sum <requirements.txt)" ]; then
    python3 -m venv --clear .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --requirement requirements.txt
    sha256sum <requirements.txt >.venv/.stamp
fi

# against KIND ARGUMENTS...: the cases of that kind against an echo of its own, which says where it listens.
against() {
    local kind=$1 address echo_pid status=0
    shift
    exec {out}< <(exec "$WS_ECHO_BIN" "$@")
    echo_pid=$!
    read -r address <&"$out"
    .venv/bin/python cases.py "$address" "$kind" || status=1
    kill "$echo_pid"
    return "$status"
}
failed=0
against plain || failed=1
against "$compressed" --deflate || failed=1
exit "$failed"
