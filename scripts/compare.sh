#!/usr/bin/env bash
# Roomcast, Centrifugo and uWebSockets under the same load, one after the other on this machine, with roomcast-loadtest.
# Centrifugo is built by Go, uWebSockets comes with Python's socketify; both into target/compare. Wants a quiet machine and
# about ten minutes. Names of comparisons as arguments make only those, in the order of the file: fanout saturation idle
# chat half. Reports and logs are left in target/compare; the tables at the end are those of README.md. Fails (99) where a
# bound of README.md is missed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

all=(fanout saturation idle chat half)
wanted=("${@:-${all[@]}}")
for name in "${wanted[@]}"; do
    if [[ " ${all[*]} " != *" $name "* ]]; then
        echo "no comparison is called $name; the names are: ${all[*]}" >&2
        exit 64
    fi
done
# shellcheck source=scripts/common.sh
source scripts/common.sh

reports=$(realpath "${CARGO_TARGET_DIR:-target}")/compare
mkdir -p "$reports"
rm -f "$reports"/*.log
[[ -x $reports/centrifugo ]] || GOBIN=$reports go install github.com/centrifugal/centrifugo/v6@v6.9.1
[[ -x $reports/venv/bin/python ]] || python3 -m venv "$reports/venv"
"$reports/venv/bin/pip" install --quiet --disable-pip-version-check socketify==0.0.31

export ROOMCAST_ROOMS_ALLOW_SUBSCRIBE_FOR_CLIENT=true ROOMCAST_ROOMS_ALLOW_PUBLISH_FOR_CLIENT=true
export CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_ALLOW_SUBSCRIBE_FOR_CLIENT=true
export CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_ALLOW_PUBLISH_FOR_CLIENT=true
export CENTRIFUGO_CLIENT_TOKEN_HMAC_SECRET_KEY=$ROOMCAST_AUTH_HMAC_SECRET
export CENTRIFUGO_HTTP_SERVER_ADDRESS=127.0.0.1 CENTRIFUGO_LOG_LEVEL=warn CENTRIFUGO_HEALTH_ENABLED=true

# Each of these starts one fresh server with these SETTINGS, and adds how it is named to the load tool to `specs`.
roomcast() {
    local clients internal
    clients=$(free_port) internal=$(free_port)
    env "$@" "$node" --listen "127.0.0.1:$clients" --internal-listen "127.0.0.1:$internal" 2>>"$reports/roomcast.log" &
    started+=($!)
    specs+=("url=ws://127.0.0.1:$clients/connection/websocket" "pid=$!")
    wait_for "$node" health --internal-listen "127.0.0.1:$internal"
}

centrifugo() {
    local port
    port=$(free_port)
    env "$@" CENTRIFUGO_HTTP_SERVER_PORT="$port" "$reports/centrifugo" 2>>"$reports/centrifugo.log" &
    started+=($!)
    specs+=("url=ws://127.0.0.1:$port/connection/websocket" "pid=$!")
    wait_for curl --silent --fail "http://127.0.0.1:$port/health"
}

uwebsockets() {
    local port
    port=$(free_port)
    "$reports/venv/bin/python" scripts/compare/uwebsockets.py "$port" >>"$reports/uwebsockets.log" 2>&1 &
    started+=($!)
    specs+=("url=ws://127.0.0.1:$port/connection/websocket" "pid=$!")
    wait_for python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))"
}

# servers COUNT NAMES -- SETTINGS: starts COUNT of each, those that know Redis on the one of `redis_port`, if there is one.
# Sets `flags`, by which they are all named to the load tool.
servers() {
    local count=$1 name one specs
    shift
    flags=()
    for name in "$@"; do
        local settings=()
        if [[ -n ${redis_port:-} ]]; then
            settings=(ROOMCAST_REDIS_URL="redis://127.0.0.1:$redis_port" CENTRIFUGO_ENGINE_TYPE=redis
                CENTRIFUGO_ENGINE_REDIS_ADDRESS="redis://127.0.0.1:$redis_port")
        fi
        specs=()
        for ((one = 0; one < count; one++)); do "$name" "${settings[@]}"; done
        if [[ $name == "$1" ]]; then
            flags=(--name "$name")
            for spec in "${specs[@]}"; do flags+=("--${spec%%=*}" "${spec#*=}"); done
        else
            flags+=(--against "name=$name$(printf ',%s' "${specs[@]}")")
        fi
    done
}

# compared FILE FLAGS...: the run, its report as JSON and as a page. A server that could not bear the load is a result.
compared() {
    local name=$1
    shift
    "$load" "${flags[@]}" "$@" --json "$reports/$name.json" --html "$reports/$name.html" 2>"$work/progress" ||
        { cat "$work/progress" >&2; false; }
    stop
    unset redis_port
}

if chosen fanout; then
    say "one room of 1000, 50 messages a second: CPU per delivery"
    servers 1 roomcast centrifugo uwebsockets
    compared fanout --clients 1000 --rate 50 --duration 20s --floor
fi

if chosen saturation; then
    say "the same room, 10,000 messages a second asked, 16 of them unanswered at most: deliveries per second"
    servers 1 roomcast centrifugo uwebsockets
    compared saturation --clients 1000 --rate 10000 --in-flight 16 --duration 10s
fi

if chosen idle; then
    say "10,000 connections with token and subscription, in rooms of 10: memory and CPU"
    servers 1 roomcast centrifugo
    compared idle --clients 10000 --rooms 1000 --rate 0 --hold 60s --connect-rate 2000
fi

if chosen chat; then
    say "500 rooms of 2, two nodes on one Redis, 5000 messages a second"
    redis
    servers 2 roomcast centrifugo
    compared chat --clients 1000 --rooms 500 --rate 5000 --duration 20s
fi

# What Centrifugo bears at the most is found first, by publishers that wait for their replies.
if chosen half; then
    say "the same rooms, as many messages as the servers take"
    redis
    servers 2 roomcast centrifugo
    compared most --clients 1000 --rooms 500 --publishers 8 --rate 100000 --in-flight 64 --duration 10s
    rate=$(python3 scripts/compare/tables.py --half-of centrifugo "$reports/most.json")
    say "the same rooms, at half of what Centrifugo bears: $rate messages a second"
    redis
    servers 2 roomcast centrifugo
    compared half --clients 1000 --rooms 500 --publishers 8 --rate "$rate" --duration 20s
fi

say "tables"
python3 scripts/compare/tables.py "$reports" "${wanted[@]}"
