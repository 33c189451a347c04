#!/usr/bin/env bash
# Two nodes, `a` and `b`, on one private Redis, for the suites beside this file.
#
#   cluster.sh up           start Redis and both nodes, wait until they are ready
#   cluster.sh up alone     start node `a` alone, without Redis
#   cluster.sh start NODE   start a node on the ports it had before
#   cluster.sh stop NODE    end a node with SIGTERM and wait until it is gone
#   cluster.sh down         end all of it
#   cluster.sh logs         print what the nodes and Redis wrote
#
# ROOMCAST_BIN names the gateway. Ports, pids and logs lie in $INTEROP_STATE;
# its file `env` tells the suites where everything is. INTEROP_ROOMS names a
# file of settings in this folder other than rooms.toml, and INTEROP_SECRET
# the secret of tokens, where a suite brings its own. Pings are 2 s apart and
# answered within 1 s, unless INTEROP_PING and INTEROP_PONG say otherwise.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
state=${INTEROP_STATE:?name a folder for ports, pids and logs}
deadline_s=40

# A process that ended but was not collected yet still has a number.
alive() { [ -r "/proc/$1/stat" ] && ! grep -q ') Z ' "/proc/$1/stat"; }

# wait_until WHAT COMMAND...: tries again until the command succeeds.
wait_until() {
  local what=$1 end=$((SECONDS + deadline_s))
  shift
  until "$@"; do
    if [ "$SECONDS" -ge "$end" ]; then
      echo "cluster.sh: waited $deadline_s s for $what" >&2
      return 1
    fi
    sleep 0.05
  done
}

ready() {
  alive "$(cat "$state/$1.pid")" || { echo "cluster.sh: node $1 ended at start" >&2; exit 1; }
  node -e 'fetch(process.argv[1]).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))' "$2"
}

start_node() {
  local name=$1 listen internal
  . "$state/env"
  if [ "$name" = a ]; then listen=$INTEROP_A internal=$INTEROP_A_INTERNAL; else listen=$INTEROP_B internal=$INTEROP_B_INTERNAL; fi
  # Nothing of the caller's own settings may reach the node, only the backend that INTEROP_RPC_URL names.
  env -i PATH="$PATH" HOME="${HOME:-/}" ${INTEROP_RPC_URL:+"ROOMCAST_HOOKS_RPC_URL=$INTEROP_RPC_URL"} \
    ROOMCAST_NODE_NAME="node-$name" \
    ROOMCAST_LISTEN="$listen" ROOMCAST_INTERNAL_LISTEN="$internal" \
    ROOMCAST_AUTH_HMAC_SECRET="$INTEROP_SECRET" ROOMCAST_API_KEY="$INTEROP_API_KEY" \
    ${INTEROP_REDIS_URL:+"ROOMCAST_REDIS_URL=$INTEROP_REDIS_URL"} \
    ROOMCAST_CLIENT_PING_INTERVAL="${INTEROP_PING:-2s}" ROOMCAST_CLIENT_PONG_TIMEOUT="${INTEROP_PONG:-1s}" \
    ROOMCAST_SHUTDOWN_DELAY=0s ROOMCAST_SHUTDOWN_DRAIN=1s \
    "$ROOMCAST_BIN" --config "$here/${INTEROP_ROOMS:-rooms.toml}" >>"$state/$name.log" 2>&1 </dev/null &
  echo $! >"$state/$name.pid"
  wait_until "node $name to be ready" ready "$name" "http://$internal/readyz"
}

stop_pid() {
  local pid
  [ -f "$state/$1.pid" ] || return 0
  pid=$(cat "$state/$1.pid")
  if alive "$pid"; then
    kill -TERM "$pid"
    wait_until "$1 to end after SIGTERM" gone "$pid" || kill -KILL "$pid"
  fi
  rm -f "$state/$1.pid"
}
gone() { ! alive "$1"; }

up() {
  mkdir -p "$state"
  # All ports are held open together, so that no two are the same.
  read -r -a ports < <(node -e '
    const net = require("node:net");
    const servers = Array.from({ length: 5 }, () => net.createServer().listen(0, "127.0.0.1"));
    Promise.all(servers.map((s) => new Promise((done) => s.on("listening", done)))).then(() => {
      console.log(servers.map((s) => s.address().port).join(" "));
      servers.forEach((s) => s.close());
    });')
  cat >"$state/env" <<ENV
export INTEROP_A=127.0.0.1:${ports[0]} INTEROP_A_INTERNAL=127.0.0.1:${ports[1]}
export INTEROP_B=127.0.0.1:${ports[2]} INTEROP_B_INTERNAL=127.0.0.1:${ports[3]}
export INTEROP_REDIS_URL=$([ "$1" = alone ] || echo "redis://127.0.0.1:${ports[4]}")
export INTEROP_SECRET=${INTEROP_SECRET:-interop-secret-of-more-than-32-bytes-length} INTEROP_API_KEY=interop-api-key
ENV
  if [ "$1" = alone ]; then
    start_node a
    return
  fi
  : >"$state/redis.log"
  redis-server --bind 127.0.0.1 --port "${ports[4]}" --save '' --appendonly no --dir "$state" >"$state/redis.log" 2>&1 </dev/null &
  echo $! >"$state/redis.pid"
  wait_until "Redis" grep -q "Ready to accept connections" "$state/redis.log"
  start_node a
  start_node b
}

case ${1:-} in
  up) up "${2:-cluster}" ;;
  start) start_node "$2" ;;
  stop) stop_pid "$2" ;;
  down) stop_pid a; stop_pid b; stop_pid redis ;;
  logs) for log in "$state"/*.log; do echo "--- $(basename "$log")"; tail -n 200 "$log"; done ;;
  *) sed -n '2,16s/^# \{0,1\}//p' "$0"; exit 64 ;;
esac
