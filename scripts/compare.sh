#!/usr/bin/env bash
# Roomcast, Centrifugo and uWebSockets under the same load, one after the other on this machine, with roomcast-loadtest.
# Centrifugo is built by Go, uWebSockets comes with Python's socketify; both into target/compare. Wants a quiet machine and
# about ten minutes. Names of comparisons as arguments make only those, in the order of the file: fanout saturation idle
# chat half. Reports and logs are left in target/compare, named COMPARISON.RUN.SERVER; the tables at the end are those of
# README.md. Fails (99) where a bound of README.md is missed. Of the environment servers get what SERVER_SETTINGS holds:
#   SERVER_SETTINGS=TOKIO_WORKER_THREADS=1 scripts/compare.sh chat
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

reports=$products/compare
mkdir -p "$reports"

# What is named here is in the name of what is made of it, so that another version is made anew.
centrifugo_version=v6.9.1
centrifugo=$reports/bin/centrifugo-$centrifugo_version
if [[ ! -x $centrifugo ]]; then
    GOBIN=$reports/bin go install "github.com/centrifugal/centrifugo/v6@$centrifugo_version"
    mv "$reports/bin/centrifugo" "$centrifugo"
fi
socketify_version=0.0.31
venv=$reports/bin/socketify-$socketify_version-python-$(python3 -c 'import platform; print(platform.python_version())')
if [[ ! -e $venv/made ]]; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "socketify==$socketify_version"
    touch "$venv/made"
fi

export ROOMCAST_ROOMS_ALLOW_SUBSCRIBE_FOR_CLIENT=true ROOMCAST_ROOMS_ALLOW_PUBLISH_FOR_CLIENT=true
export CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_ALLOW_SUBSCRIBE_FOR_CLIENT=true
export CENTRIFUGO_CHANNEL_WITHOUT_NAMESPACE_ALLOW_PUBLISH_FOR_CLIENT=true
export CENTRIFUGO_CLIENT_TOKEN_HMAC_SECRET_KEY=$ROOMCAST_AUTH_HMAC_SECRET
export CENTRIFUGO_HTTP_SERVER_ADDRESS=127.0.0.1 CENTRIFUGO_LOG_LEVEL=warn CENTRIFUGO_HEALTH_ENABLED=true

# Each of these starts one server with `settings`, whose log is `log`, and adds to `flags` how it is named to the load tool.
roomcast() {
    local clients internal
    clients=$(free_port) internal=$(free_port)
    env "${given[@]}" "${settings[@]}" "$node" --listen "127.0.0.1:$clients" --internal-listen "127.0.0.1:$internal" \
        2>>"$log" &
    named "$clients/connection/websocket" $!
    wait_for "$node" health --internal-listen "127.0.0.1:$internal"
}

centrifugo() {
    local port
    port=$(free_port)
    env "${given[@]}" "${settings[@]}" CENTRIFUGO_HTTP_SERVER_PORT="$port" "$centrifugo" 2>>"$log" &
    named "$port/connection/websocket" $!
    wait_for curl --silent --fail --max-time 1 --noproxy '*' "http://127.0.0.1:$port/health"
}

uwebsockets() {
    local port
    port=$(free_port)
    env "${given[@]}" "$venv/bin/python" scripts/compare/uwebsockets.py "$port" >>"$log" 2>&1 &
    named "$port/connection/websocket" $!
    wait_for python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))"
}

# The bare write loop, which the load tool starts by itself.
floor() { flags=(floor); }

# named PLACE PID
named() {
    started+=("$2")
    flags+=(--url "ws://127.0.0.1:$1" --pid "$2")
}

# runs NAME COUNT SERVERS FLAGS...: each of SERVERS, in their order, with COUNT fresh processes, and a fresh Redis if those
# are several, under the load that FLAGS say. A server that could not bear it is a result.
runs() {
    local comparison=$1 count=$2 servers server run=0
    read -ra servers <<<"$3"
    shift 3
    rm -f "$reports/$comparison".*
    for server in "${servers[@]}"; do
        run=$((run + 1))
        say "$comparison, run $run: $server"
        measured "$reports/$comparison.$run.$server" "$server" "$count" "$@"
    done
}

# measured FILE SERVER COUNT FLAGS...: one of these runs.
measured() {
    local file=$1 server=$2 count=$3 log=$1.log settings=() flags
    shift 3
    flags=(--name "$server")
    unset redis_port
    if ((count > 1)); then
        redis_log=$file.redis.log
        redis
        settings=(ROOMCAST_REDIS_URL="redis://127.0.0.1:$redis_port" CENTRIFUGO_ENGINE_TYPE=redis
            CENTRIFUGO_ENGINE_REDIS_ADDRESS="redis://127.0.0.1:$redis_port")
    fi
    for _ in $(seq "$count"); do "$server"; done
    "$load" "${flags[@]}" "$@" --json "$file.json" --html "$file.html" 2>"$work/progress" ||
        { cat "$work/progress" >&2; false; }
    explained "$file"
    stop
}

# explained FILE: where not all was done, or a server or its Redis complained: what there is that may tell why. Centrifugo
# always complains that it has no settings file and is no release.
explained() {
    local faults complaints cut
    faults=$(python3 scripts/compare/tables.py --faults "$1.json")
    complaints=$(grep -siE '"level": *"(warn|error|fatal)"|after an outage|panic|Traceback' "$1.log" |
        grep -vE -m 20 'config file not found|development build of Centrifugo' || true)
    cut=$(grep -sE -m 20 'overcoming of output buffer limits|Evicting client' "$1.redis.log" || true)
    [[ -n $faults$complaints$cut ]] || return 0
    printf '\n%s: %s\n' "$(basename "$1")" "${faults:-everything was done, but there were complaints}"
    if [[ -n ${redis_port:-} ]]; then
        echo "Redis:" "$(redis-cli -p "$redis_port" info | tr -d '\r' | grep -E \
            '^(connected_clients|client_.*|.*_connections|total_connections_received|evicted_clients):' | paste -sd ' ')"
    fi
    printf '%s\n' "${complaints:-no complaint in $1.log}" ${cut:+"$cut"} | cut -c1-600
}

if chosen fanout; then
    say "one room of 1000, 50 messages a second: CPU per delivery"
    runs fanout 1 "floor roomcast centrifugo uwebsockets" --clients 1000 --rate 50 --duration 20s
fi

if chosen saturation; then
    say "the same room, 10,000 messages a second asked, 16 of them unanswered at most: deliveries per second"
    runs saturation 1 "uwebsockets centrifugo roomcast" --clients 1000 --rate 10000 --in-flight 16 --duration 10s
fi

if chosen idle; then
    say "10,000 connections with token and subscription, in rooms of 10: memory and CPU"
    runs idle 1 "roomcast centrifugo" --clients 10000 --rooms 1000 --rate 0 --hold 60s --connect-rate 2000
fi

# What else the machine does comes and goes: each is first and last, and what counts is the mean of both.
if chosen chat; then
    say "500 rooms of 2, two nodes on one Redis, 5000 messages a second"
    runs chat 2 "roomcast centrifugo centrifugo roomcast" --clients 1000 --rooms 500 --rate 5000 --duration 20s
fi

# What Centrifugo bears at the most is found first, by publishers that wait for their replies.
if chosen half; then
    say "the same rooms, as many messages as the servers take"
    runs most 2 "centrifugo roomcast" --clients 1000 --rooms 500 --publishers 8 --rate 100000 --in-flight 64 --duration 10s
    rate=$(python3 scripts/compare/tables.py --half-of centrifugo "$reports")
    say "the same rooms, at half of what Centrifugo bears: $rate messages a second"
    runs half 2 "roomcast centrifugo" --clients 1000 --rooms 500 --publishers 8 --rate "$rate" --duration 20s
fi

say "tables${given[*]:+, with ${given[*]}}"
python3 scripts/compare/tables.py "$reports" "${wanted[@]}"
