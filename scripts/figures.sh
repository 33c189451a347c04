#!/usr/bin/env bash
# The figures of README.md, measured on this machine: starts nodes (and a Redis where they have one), lets
# roomcast-loadtest drive them, and stops them. Fails where a bound of README.md is missed. Wants a quiet machine.
# Names of figures as arguments measure only those, in the order of the file: floor saturation idle chat broker history
# positioned recovery presence resubscribe, and soak, which takes minutes and is measured only when it is named.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

all=(floor saturation idle chat broker history positioned recovery presence resubscribe)
wanted=("${@:-${all[@]}}")
for name in "${wanted[@]}"; do
    if [[ " ${all[*]} soak " != *" $name "* ]]; then
        echo "no figure is called $name; the names are: ${all[*]} soak" >&2
        exit 64
    fi
done

# shellcheck source=scripts/common.sh
source scripts/common.sh

cat >"$work/roomcast.toml" <<'TOML'
[rooms]
allow_subscribe_for_client = true
allow_publish_for_client = true
TOML

# nodes COUNT SETTINGS...: starts fresh nodes and sets `target`, the flags that name them to the load tool.
nodes() {
    local count=$1 clients internal
    shift
    target=()
    for _ in $(seq "$count"); do
        clients=$(free_port) internal=$(free_port)
        env "${given[@]}" "$@" "$node" --config "$work/roomcast.toml" --listen "127.0.0.1:$clients" \
            --internal-listen "127.0.0.1:$internal" 2>>"$work/log" &
        started+=($!)
        target+=(--url "ws://127.0.0.1:$clients/connection/websocket" --pid $!)
        wait_for "$node" health --internal-listen "127.0.0.1:$internal"
    done
}

missed=0
# A bound that is missed (99) is told at the end; anything else ends the script.
run() { "$load" "${target[@]}" "$@" || { [[ $? -eq 99 ]] && missed=1; }; }

# bound VALUE <=|>= LIMIT WHAT: the same for what the load tool does not know. What is no number is a missed bound, and so is
# what is not above 0: nothing costs nothing, and less than nothing was measured wrongly.
bound() {
    local verdict=ok
    if ! awk -v value="$1" -v limit="$3" -v least="$2" 'BEGIN {
        exit !(value ~ /^[0-9.]+(e[-+]?[0-9]+)?$/ && value > 0 && (least == ">=" ? value + 0 >= limit + 0 : value + 0 <= limit + 0)) }'; then
        verdict=MISSED missed=1
    fi
    echo "$4: ${1:-not measured} (bound: $2 $3) $verdict"
}

# figure FILE NAMES...: what a report in JSON says; nothing, and a word about it, where it does not say that.
figure() {
    python3 -c 'import functools, json, sys
found = functools.reduce(lambda found, name: (found or {}).get(name), sys.argv[2:], json.load(open(sys.argv[1]))["figures"])
print("" if found is None else found)
if found is None: print("missing in the report:", ".".join(sys.argv[2:]), file=sys.stderr)' "$@"
}

# calls all|NAMES: how often nodes called Redis since it was last told to forget it, a script being one call and what only
# scripts do none; or how often these commands (a pattern) were run, within scripts as well.
calls() {
    redis-cli -p "$redis_port" info commandstats | awk -F '[:=,]' -v names="^cmdstat_($1)\$" \
        -v others='^cmdstat_(config.*|info|mget|get|set|del|expire|persist|xrange|xrevrange)$' \
        '/^cmdstat_/ && (names ~ /\(all\)/ ? $1 !~ others : $1 ~ names) { sum += $3 } END { print sum + 0 }'
}

kept=(ROOMCAST_ROOMS_HISTORY_SIZE=100 ROOMCAST_ROOMS_HISTORY_TTL=5m
    ROOMCAST_ROOMS_ALLOW_POSITIONING=true ROOMCAST_ROOMS_ALLOW_RECOVERY=true)

if chosen floor; then
    say "one room of 1000: CPU per delivery at 50 messages a second, as a ratio to a bare write loop"
    nodes 1
    run --clients 1000 --rate 50 --duration 20s --floor --fail-if 'times_floor>1.2,lost>0,doubled>0,out_of_order>0'
    stop
fi

if chosen saturation; then
    say "the same room at saturation"
    nodes 1
    run --clients 1000 --rate 4000 --duration 10s --fail-if 'delivery_rate<2500000,lost>0,doubled>0,out_of_order>0'
    stop
fi

if chosen idle; then
    say "10,000 idle connections in 1000 rooms, two nodes on one Redis"
    redis
    nodes 2 ROOMCAST_REDIS_URL="redis://127.0.0.1:$redis_port"
    run --clients 10000 --rooms 1000 --rate 0 --hold 60s --connect-rate 10000 \
        --fail-if 'rss_per_connection>2KB,cpu_per_idle_second>1us,cpu_per_connect>100us'
    stop
fi

if chosen chat; then
    say "500 rooms of 2, two nodes on one Redis, 5000 messages a second from one connection"
    redis
    nodes 2 ROOMCAST_REDIS_URL="redis://127.0.0.1:$redis_port"
    run --clients 1000 --rooms 500 --rate 5000 --duration 20s --fail-if 'p99>3ms,cpu_per_delivery>84us,lost>0,doubled>0'
    stop
fi

if chosen broker; then
    say "500 rooms through Redis, batched: publishes that one node makes, and what it costs to receive them"
    cargo bench --locked --package roomcast --bench broker -- 'broker/(publish|receive)$' | tee "$work/bench"
    bound "$(awk '/^broker\/publish:/ { print $2 }' "$work/bench")" '>=' 250000 "publishes a second"
    bound "$(awk '/^broker\/receive:/ { print $6 }' "$work/bench")" '<=' 1 "microseconds of the node's CPU for each received"
fi

if chosen history; then
    say "publishing into histories of 100 through Redis, batched: CPU of both processes, as a ratio to plain publishing"
    cargo bench --locked --package roomcast --bench broker -- \
        'broker/(publish( \(one room\))?|append \(history 100(, one room)?\))$' | tee "$work/bench"
    bound "$(awk '/^history, one room:/ { print $4 }' "$work/bench")" '<=' 2 "times the CPU of a plain publish, one room"
    # Hardly two publications of a room are in one batch, and nothing is packed.
    echo "500 rooms in turn: $(awk '/^history, 500 rooms in turn:/ { print $6 }' "$work/bench") times (without a bound)"
fi

if chosen positioned; then
    say "10,000 idle connections, each with one positioned room of 1000, two nodes on one Redis"
    redis
    nodes 2 ROOMCAST_REDIS_URL="redis://127.0.0.1:$redis_port" "${kept[@]}"
    run --clients 10000 --rooms 1000 --rate 0 --positioned --connect-rate 10000 --fail-if 'rss_per_connection>3.5KB'
    stop
fi

# What is published lies between the breaking of the connections and their return, and Redis begins to count after it.
if chosen recovery; then
    say "10,000 clients of 100 rooms come back at once and recover 10 publications each, two nodes on one Redis"
    redis
    nodes 2 ROOMCAST_REDIS_URL="redis://127.0.0.1:$redis_port" "${kept[@]}"
    run --clients 10000 --rooms 100 --rate 0 --spike 1000 --spike-for 1s --duration 9s --connect-rate 10000 \
        --recover --reconnect --storm 100 --storm-away 3s --at "5900ms=redis-cli -p $redis_port config resetstat" \
        --json "$work/recovery.json" --fail-if 'back_after>5s,recovered<10000,return_errors>0,lost>0,doubled>0'
    bound "$(calls all | awk '{ print $1 / 10000 }')" '<=' 2 "Redis calls per client"
    bound "$(figure "$work/recovery.json" deliveries recovered)" '>=' 100000 "publications recovered"
    stop
fi

# Members are renewed 27 times as often as by default, so that what it costs stands out, and once as often, which is
# subtracted: with it goes what the connections themselves cost. No ping is due meanwhile.
if chosen presence; then
    for interval in 27 1; do
        say "10,000 idle members of 100 rooms, each renewed every $interval s: CPU of the node and of its Redis"
        redis
        nodes 1 ROOMCAST_REDIS_URL="redis://127.0.0.1:$redis_port" ROOMCAST_CLIENT_PING_INTERVAL=10m \
            ROOMCAST_CHANNEL_PRESENCE_UPDATE_INTERVAL="${interval}s" ROOMCAST_ROOMS_PRESENCE=true
        run --pid "$redis_pid" --clients 10000 --rooms 100 --rate 0 --settle 5s --hold 25s --connect-rate 10000 \
            --json "$work/presence-$interval.json" --fail-if 'connected<10000,disconnects>0'
        zadds=$(calls zadd)
        stop
    done
    seldom=$(figure "$work/presence-27.json" server cpu_per_idle_second)
    often=$(figure "$work/presence-1.json" server cpu_per_idle_second)
    # Nanoseconds of each of 10,000 in a second, for 26 renewals in 27 s: what one of them costs is what all cost by default.
    bound "$(awk -v often="$often" -v seldom="$seldom" \
        'BEGIN { if (often != "" && seldom != "") print (often - seldom) / 1000 / 26 }')" '<=' 1 \
        "percent of a core for upkeep every 27 s"
    # A node that renews nobody would cost nothing: each member enters with two entries of sorted sets, is renewed with one.
    bound "$zadds" '>=' 270000 "entries and renewals that Redis saw"
fi

if chosen resubscribe; then
    say "100,000 rooms of one node, Redis is started again: time until all are heard"
    cargo bench --locked --package roomcast --bench resubscribe | tee "$work/bench"
    bound "$(awk '/^resubscribe\/heard:/ { print $6 }' "$work/bench")" '<=' 2 "seconds at most, from when Redis answers"
    bound "$(awk '/^resubscribe\/commands:/ { print $2 }' "$work/bench")" '<=' 200 "commands"
fi

# It takes minutes, and is measured when it is asked for by name. Beside 2000 connections that stay, others come and go until
# they were as many as asked for, however fast that is. Before the first look as many were there at once as ever will be.
if chosen soak; then
    connects=${SOAK:-1000000}
    say "$connects connections come and go, up to 5000 a second, beside 2000 that stay: memory of the node"
    nodes 1
    node_pid=${target[3]}
    rss() { awk '/^VmRSS:/ { print $2 }' "/proc/$node_pid/status"; }
    open_files() { find "/proc/$node_pid/fd" -type l 2>/dev/null | wc -l; }
    seated() { (($(open_files) > 2000)); }
    gone() { (($(open_files) < 2100)); }
    others=("${target[@]}" --source-ip 127.0.0.2-127.0.0.33 --clients 2000 --room-size 10 --connect-rate 2000)
    fresh=$(rss)
    "$load" "${target[@]}" --clients 2000 --room-size 10 --rate 0 --hold 24h --connect-rate 2000 >/dev/null 2>&1 &
    started+=($!)
    wait_for seated
    "$load" "${others[@]}" --rate 0 --duration 1s >/dev/null
    wait_for gone
    before=$(rss)
    seconds=$((connects / 5000 < 60 ? connects / 5000 + 1 : 60))
    came=0 round=1
    while ((came < connects && round > 0)); do
        target=("${others[@]}")
        run --rate 100 --churn 5000 --duration "${seconds}s" --json "$work/soak.json" \
            --fail-if 'connected<2000,return_errors>0,lost>0,doubled>0,out_of_order>0'
        round=$(figure "$work/soak.json" returns returned)
        came=$((came + round))
    done
    wait_for gone
    after=$(rss)
    bound "$came" '>=' "$connects" "connections that came and went"
    bound "$(awk -v before="$before" -v after="$after" 'BEGIN { print after / before }')" '<=' 1.3 \
        "times the memory before, both with 2000 connections"
    echo "KB of memory without connections, with 2000 before and after: $fresh $before $after"
    stop
fi
exit $missed
