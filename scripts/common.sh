# What the measuring scripts share: a free port, waiting, a Redis, and what is started stopped with the script. To be
# sourced from the root of the repository; sets `node` and `load` (release builds), `work` (a folder that goes with the
# script) and `started` (process ids). `chosen` looks into `wanted`, the names that the script was called with.
# shellcheck shell=bash

cargo build --release --locked --package roomcast --package roomcast-loadtest
built=$(realpath "${CARGO_TARGET_DIR:-target}")/release
node=$built/roomcast
load=$built/roomcast-loadtest
work=$(mktemp -d)
export ROOMCAST_AUTH_HMAC_SECRET=a-secret-for-measuring-0123456789abcdef
started=()
stop() {
    if ((${#started[@]})); then
        kill -9 "${started[@]}" 2>/dev/null || true
        wait "${started[@]}" 2>/dev/null || true
    fi
    started=()
}
trap 'stop; rm -rf "$work"' EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# wait_for COMMAND...: until it succeeds, ten seconds at the most.
wait_for() {
    for _ in $(seq 100); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    echo "never succeeded: $*" >&2
    return 1
}

# redis: starts one that keeps nothing on disc, and sets `redis_port` and `redis_pid`.
redis() {
    redis_port=$(free_port)
    redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no >/dev/null &
    redis_pid=$!
    started+=("$redis_pid")
    wait_for redis-cli -p "$redis_port" ping
}

say() { printf '\n== %s\n' "$*"; }
chosen() { [[ " ${wanted[*]} " == *" $1 "* ]]; }
