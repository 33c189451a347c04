#!/usr/bin/env bash
# The figures of README.md, measured on this machine: starts nodes (and a Redis where two share one), lets
# roomcast-loadtest drive them, and stops them. Fails where a bound of README.md is missed. Wants a quiet machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo build --release --package roomcast --package roomcast-loadtest
node=$PWD/target/release/roomcast
load=$PWD/target/release/roomcast-loadtest
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

cat >"$work/roomcast.toml" <<'TOML'
[rooms]
allow_subscribe_for_client = true
allow_publish_for_client = true
TOML

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

# nodes COUNT SETTINGS...: starts fresh nodes and sets `target`, the flags that name them to the load tool.
nodes() {
    local count=$1 clients internal
    shift
    target=()
    for _ in $(seq "$count"); do
        clients=$(free_port) internal=$(free_port)
        env "$@" "$node" --config "$work/roomcast.toml" --listen "127.0.0.1:$clients" \
            --internal-listen "127.0.0.1:$internal" 2>>"$work/log" &
        started+=($!)
        target+=(--url "ws://127.0.0.1:$clients/connection/websocket" --pid $!)
        wait_for "$node" health --internal-listen "127.0.0.1:$internal"
    done
}

redis() {
    redis_port=$(free_port)
    redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no >/dev/null &
    started+=($!)
    wait_for redis-cli -p "$redis_port" ping
}

say() { printf '\n== %s\n' "$*"; }
missed=0
# A bound that is missed (99) is told at the end; anything else ends the script.
run() { "$load" "${target[@]}" "$@" || { [[ $? -eq 99 ]] && missed=1; }; }

say "one room of 1000: CPU per delivery at 50 messages a second, as a ratio to a bare write loop"
nodes 1
run --clients 1000 --rate 50 --duration 20s --floor --fail-if 'times_floor>1.3,lost>0,doubled>0,out_of_order>0'
stop

say "the same room at saturation"
nodes 1
run --clients 1000 --rate 4000 --duration 10s --fail-if 'delivery_rate<2500000,lost>0,doubled>0,out_of_order>0'
stop

say "10,000 idle connections in 1000 rooms, two nodes on one Redis"
redis
nodes 2 ROOMCAST_REDIS_URL="redis://127.0.0.1:$redis_port"
run --clients 10000 --rooms 1000 --rate 0 --hold 60s --connect-rate 10000 \
    --fail-if 'rss_per_connection>3KB,cpu_per_idle_second>2us,cpu_per_connect>100us'
stop

say "500 rooms of 2, two nodes on one Redis, 5000 messages a second from one connection"
redis
nodes 2 ROOMCAST_REDIS_URL="redis://127.0.0.1:$redis_port"
run --clients 1000 --rooms 500 --rate 5000 --duration 20s --fail-if 'p99>3ms,cpu_per_delivery>84us,lost>0,doubled>0'
stop
exit $missed
