#!/usr/bin/env bash
# Installs the programs that the tests run, on Debian and its kin. Asks for nothing when all of them are there.
set -euo pipefail

# Program, and the package that brings it.
programs=(
    cc:build-essential
    make:build-essential
    git:git
    curl:curl
    openssl:openssl
    python3:python3
    node:nodejs
    npm:npm
    go:golang-go
    javac:default-jdk-headless
    mvn:maven
    redis-server:redis-server
    redis-cli:redis-tools
    haproxy:haproxy
    faketime:faketime
    prometheus:prometheus
    promtool:prometheus
    chromium:chromium
    buildah:buildah
)

missing=()
for entry in "${programs[@]}"; do
    command -v "${entry%%:*}" >/dev/null || missing+=("${entry##*:}")
done
# Debian splits this part off; without it `python3 -m venv` stops half way.
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    missing+=(python3 python3-venv)
fi

if [[ ${#missing[@]} -gt 0 ]]; then
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    command -v apt-get >/dev/null || {
        echo "missing: ${missing[*]} (names of Debian packages), and there is no apt-get to install them with" >&2
        exit 1
    }
    as_root=()
    if [[ $EUID -ne 0 ]]; then
        if ! sudo -n true 2>/dev/null && [[ ! -t 0 ]]; then
            echo "missing: ${missing[*]}. Run once as root: apt-get install --no-install-recommends ${missing[*]}" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    options=(-y --no-install-recommends -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    echo "installing: ${missing[*]}"
    "${as_root[@]}" apt-get update -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install "${options[@]}" "${missing[@]}"
fi

# What apt does not bring, or brings too old a version of: all of it is said at once.
lacking=()
command -v cargo >/dev/null ||
    lacking+=("missing: cargo. Install rustup (https://rustup.rs); it brings the version that rust-toolchain.toml names")
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    lacking+=("$(python3 --version) is too old: the tests in Python need 3.11 or later (https://www.python.org)")
# Options of its test runner that came with 20.11.
node -e 'const [major, minor] = process.versions.node.split(".").map(Number); process.exit(major > 20 || (major === 20 && minor >= 11) ? 0 : 1)' ||
    lacking+=("node $(node --version) is too old: the tests of the SDKs and of the page need 20.11 or later (https://nodejs.org)")
# The SDKs for Go and Java say what they want.
sdk=$(dirname "${BASH_SOURCE[0]}")/../gateway/tests/interop/go
if ! said=$(cd "$sdk" && go list -m 2>&1); then
    echo "$said" >&2
    lacking+=("$(go version) will not do: the tests of the SDK for Go need $(sed -n 's/^go //p' "$sdk/go.mod"), which 1.21 and later fetch by themselves unless GOTOOLCHAIN forbids it (https://go.dev/dl)")
fi
javac --release 17 -version >/dev/null 2>&1 ||
    lacking+=("$(javac -version 2>&1) is too old: the tests of the SDK for Java need 17 or later (https://adoptium.net)")
if [[ ${#lacking[@]} -gt 0 ]]; then
    printf '%s\n' "${lacking[@]}" >&2
    exit 1
fi
