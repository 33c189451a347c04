#!/usr/bin/env bash
# A million connections on this machine: as many nodes and load processes as its file limit asks for, one Redis between
# them; ramp, hold with pings, then a trickle of messages while connections come and go, one node is drained and one is
# killed. Ends with 99 where something is lost, or a connection does not get through or costs too much. Wants the machine
# for itself; at a smaller scale:
#   scripts/million.sh --connections 20000 --hold 30s
# Further flags go to the load tool. The reports are left in target/million.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

connections=1000000 hold=300s
while (($#)); do
    case $1 in
    --connections) connections=$2 ;;
    --hold) hold=$2 ;;
    *) break ;;
    esac
    shift 2
done

ulimit -n "$(ulimit -Hn)"
# Of its files a node keeps one in twelve free: for what is no connection, and for the clients of nodes that end.
files=$(ulimit -n)
((files <= 1000000)) || files=1000000
each=$((files - files / 12))
count=$(((connections + each - 1) / each))
((count >= 4)) || count=4

# Both ends of a connection, the tool and Redis take 13 KB together, and each process some megabytes.
needed=$((connections * 13 / 1024 + count * 50 + 500))
available=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
if ((available < needed)); then
    echo "$connections connections take about $needed MB on this machine, $available MB are free: give a smaller --connections" >&2
    exit 1
fi

# A ping and its answer take both ends some 40 us together, and half of the cores are to be left for the rest.
ping=$((connections / (12500 * $(nproc))))
((ping >= 25)) || ping=25

# shellcheck source=scripts/common.sh
source scripts/common.sh
patience=60
reports=$products/million
mkdir -p "$reports"
: >"$reports/nodes.log"

redis=(redis-cli -s "$work/redis")
redis-server --port 0 --unixsocket "$work/redis" --save '' --appendonly no >/dev/null &
started+=($!)
wait_for "${redis[@]}" ping

cat >"$work/roomcast.toml" <<TOML
redis.url = "redis+unix://$work/redis"
log.level = "warn"
client.ping_interval = "${ping}s"
[rooms]
allow_subscribe_for_client = true
allow_publish_for_client = true
TOML

# Each node and each load process has a loopback address of its own.
place() { echo "127.$1.$(($2 / 200)).$(($2 % 200 + 1))"; }
urls=() pids=()
for n in $(seq 0 $((count - 1))); do
    address=$(place 1 "$n")
    env "${given[@]}" "$node" --config "$work/roomcast.toml" --listen "$address:8000" --internal-listen "$address:9000" \
        2>>"$reports/nodes.log" &
    # Its end is part of the run, and nothing the shell has to tell.
    disown
    started+=($!)
    pids+=($!)
    urls+=(--url "ws://$address:8000/connection/websocket" --pid $!)
done
for n in $(seq 0 $((count - 1))); do
    wait_for "$node" health --internal-listen "$(place 1 "$n"):9000"
done

# Of the 28,000 ports between a source address and a node most stay free, however few the nodes are.
sources=$((connections / 20000 + 1))
((sources >= count)) || sources=$count
churn=$((connections / 5000))
((churn >= 10)) || churn=10
# The first node is the one the publisher is at; it stays.
failed=0
"$load" --name roomcast "${urls[@]}" --source-ip "$(place 2 0)-$(place 2 $((sources - 1)))" --clients "$connections" \
    --room-size 10 --connect-rate 2500 --settle 10s --hold "$hold" --rate 100 --duration 120s --quiet 15s \
    --churn "$churn" --reconnect --at "20s=kill -TERM ${pids[1]}" --at "80s=kill -KILL ${pids[2]}" --floor \
    --fail-if 'lost>0,doubled>0,out_of_order>0,misrouted>0,connect_errors>0,unanswered>0,rss_per_connection>2KB' \
    --json "$reports/report.json" --html "$reports/report.html" "$@" || failed=$?

echo
echo "$count nodes, $files files each; the report with its plots is $reports/report.html"
"${redis[@]}" info | grep -E '^(used_memory_rss_human|used_cpu_user|used_cpu_sys|pubsub_channels|total_commands_processed):' ||
    echo "Redis does not answer any more"
exit "$failed"
