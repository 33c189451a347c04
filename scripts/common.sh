# What the measuring scripts share: the settings of servers, a free port, waiting, a Redis, and what is started stopped with
# the script. To be sourced from the root of the repository; sets `node` and `load` (release builds), `products` (where those
# are, and reports go), `work` (a folder that goes with the script), `started` (process ids) and `given` (for every server).
# `chosen` looks into `wanted`, the names that the script was called with.
# shellcheck shell=bash disable=SC2034,SC2154

# Servers get what the scripts set and what is in SERVER_SETTINGS, such as "TOKIO_WORKER_THREADS=1 ROOMCAST_LOG_LEVEL=debug",
# and none of the variables below that the caller's environment happens to hold: a result has to come out again.
read -rd '' -a given <<<"${SERVER_SETTINGS:-}" || true
for name in "${given[@]}"; do
    [[ $name == ?*=* ]] && continue
    echo "SERVER_SETTINGS: \`$name\` is to be the name of a variable, = and a value" >&2
    exit 64
done
for name in $(compgen -e); do
    case $name in
    ROOMCAST_TEST_*) ;;
    ROOMCAST_* | CENTRIFUGO_* | TOKIO_WORKER_THREADS | GOMAXPROCS | GOGC | GOMEMLIMIT)
        echo "$name of the environment is left out; SERVER_SETTINGS=\"$name=...\" would give it to the servers" >&2
        unset "$name"
        ;;
    esac
done

cargo build --release --locked --package roomcast --package roomcast-loadtest
products=$(realpath "${CARGO_TARGET_DIR:-target}")
node=$products/release/roomcast
load=$products/release/roomcast-loadtest
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

# wait_for COMMAND...: until it succeeds, for `patience` seconds at the most.
patience=10
wait_for() {
    local last=$((SECONDS + patience))
    while ((SECONDS <= last)); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.1
    done
    echo "did not succeed within $patience s: $*" >&2
    return 1
}

# redis: starts one that keeps nothing on disc and whose log is `redis_log`, and sets `redis_port` and `redis_pid`.
redis_log=/dev/null
redis() {
    redis_port=$(free_port)
    redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no >"$redis_log" &
    redis_pid=$!
    started+=("$redis_pid")
    wait_for redis-cli -p "$redis_port" ping
}

say() { printf '\n== %s\n' "$*"; }
chosen() { [[ " ${wanted[*]} " == *" $1 "* ]]; }
