#!/usr/bin/env bash
# The whole check. Each step is a target of the Makefile with a log of its own under artifacts/check/; a step waits for
# those it needs and is skipped when one of them failed. Compilers run one after the other, for they fill the machine;
# installations run beside them. Ends with a table and the line that artifacts/check/summary holds.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
# Tests of a thousand sockets and more: the usual soft limit is 1024.
ulimit -Sn "$(ulimit -Hn)" 2>/dev/null || true

# What is started in the background does not hear Ctrl-C by itself.
trap 'trap - TERM; kill 0' INT TERM
# The steps are makes of their own, not parts of the one that runs this.
unset MAKEFLAGS MFLAGS MAKELEVEL

logs=artifacts/check
rm -rf "$logs"
mkdir -p "$logs"
started=$SECONDS

say() { printf '%s %s\n' "$(printf '%02d:%02d' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)))" "$*"; }

ended() { [[ -e $logs/$1.result ]]; }

# Written whole before it gets its name, because other steps wait for the name.
finish() {
    echo "$2 $3" >"$logs/$1.result.part"
    mv "$logs/$1.result.part" "$logs/$1.result"
}

# Process ids of the branches that were begun before this one, each of which runs some of the steps.
branches=()

# awaited STEP: until it has ended. Where those who could run it are gone, it fails and never will: one of them was killed.
awaited() {
    local alive=yes
    until ended "$1"; do
        # What it did last, it may have done between the two looks.
        [[ -n $alive ]] || return
        kill -0 "${branches[@]}" 2>/dev/null || alive=
        sleep 0.2
    done
}

# step NAME NEEDS... -- COMMAND...: waits for the steps it needs, runs the command, keeps log and result.
step() {
    local name=$1 needs=() result seconds
    shift
    while [[ $1 != -- ]]; do
        needs+=("$1")
        shift
    done
    shift
    for need in "${needs[@]}"; do
        if ! awaited "$need" || [[ $(cut -d' ' -f1 "$logs/$need.result") != passed ]]; then
            echo "not run: $need did not pass" >"$logs/$name.log"
            finish "$name" failed 0
            say "FAILED  $name (not run: $need did not pass)"
            return
        fi
    done
    local begun=$SECONDS
    say "running $name"
    if "$@" >"$logs/$name.log" 2>&1 </dev/null; then result=passed; else result=failed; fi
    seconds=$((SECONDS - begun))
    finish "$name" "$result" "$seconds"
    if [[ $result == passed ]]; then
        say "passed  $name (${seconds} s)"
    else
        say "FAILED  $name (${seconds} s); the end of $logs/$name.log:"
        tail -n 60 "$logs/$name.log" | sed 's/^/    /'
    fi
}

# reasons LOG: the failed tests of cargo test and pytest and what they said, or else how the log ends. What is too much of it
# is counted.
reasons() {
    local found most=60
    found=$(grep -aE -A2 '^test .* FAILED$|panicked at|^(FAILED|ERROR) |^(FAIL|ERROR): |^[A-Za-z.]+Error: |^error' "$1" | grep -vE '^--$|^$|RUST_BACKTRACE|\.\.\. ok$')
    [[ -n $found ]] || found=$(tail -n 15 "$1")
    awk -v most="$most" -v log_file="$1" 'NR <= most { print substr($0, 1, 400) }
        END { if (NR > most) print "and " NR - most " lines more, in " log_file }' <<<"$found"
}

target() { make --no-print-directory "$@"; }
# Behind everything else: what compiles meanwhile must not make tests late.
quietly() { nice -n 19 make --no-print-directory "$@"; }

installing() {
    step tools -- target tools
    step scripts tools -- target scripts
    step deploy-tools tools -- target deploy-tools
    step deploy-check deploy-tools -- target deploy-check
}

compiling() {
    step fmt -- target fmt
    # Lints need a C compiler for the libraries: on a bare machine the tools bring it.
    step clippy tools -- target clippy
    step doc tools -- target doc
    step deny tools -- target deny
    step binaries tools -- target binaries
    step unit binaries -- target unit
    step stores binaries -- target stores
    step release tools -- quietly release
}

# These wait on sockets more than they compute; the optimised build runs beside them.
talking() {
    local bin=$PWD/target/debug/roomcast
    # The Rust tests load the machine: let them end, well or not, before clients of other languages begin.
    awaited unit || true
    step interop binaries -- target interop ROOMCAST_BIN="$bin"
    step openapi binaries -- target openapi ROOMCAST_BIN="$bin"
    step browser binaries -- target browser ROOMCAST_BIN="$bin"
    step autobahn binaries -- target autobahn
    step oracle binaries -- target oracle
    step faults binaries -- target faults
    step deploy-live deploy-check release -- target deploy-live ROOMCAST_BIN="$PWD/target/release/roomcast"
}

steps=(fmt clippy doc deny tools scripts deploy-tools deploy-check binaries unit stores interop openapi browser autobahn oracle faults release deploy-live)
for branch in installing compiling talking; do
    "$branch" &
    branches+=($!)
done
wait
for name in "${steps[@]}"; do
    ended "$name" && continue
    echo "did not end: who was to run it was killed, perhaps for want of memory" >>"$logs/$name.log"
    finish "$name" failed 0
done

passed=0 failed=0
printf '\n%-14s %-8s %8s %8s\n' step result tests seconds
for name in "${steps[@]}"; do
    read -r result seconds <"$logs/$name.result"
    # The closing lines of cargo test, pytest, unittest, node's runner and Maven, and one of Go for each test below
    # another; empty for steps that count none.
    tests=$(sed -nE 's/.*[^0-9]([0-9]+) passed.*/\1/p; s/^Ran ([0-9]+) tests?.*/\1/p; s/^(#|ℹ) pass ([0-9]+)$/\2/p;
        s/^\[[A-Z]+\] Tests run: ([0-9]+), [^-]*Skipped: [0-9]+$/\1/p; s/^ +--- PASS: .*/1/p' \
        "$logs/$name.log" | awk '{ sum += $1 } END { if (NR) print sum }')
    if [[ $result == passed ]] && grep -q '^skipped: ' "$logs/$name.log"; then result=skipped; fi
    case $result in
        passed) passed=$((passed + 1)) ;;
        failed) failed=$((failed + 1)) ;;
    esac
    printf '%-14s %-8s %8s %8s\n' "$name" "$result" "${tests:--}" "$seconds"
done
# What failed stands at the end, where it is seen also by whoever is shown the end alone.
for name in "${steps[@]}"; do
    read -r result _ <"$logs/$name.result"
    if [[ $result == failed ]]; then
        printf '\n%s:\n' "$name"
        reasons "$logs/$name.log" | sed 's/^/    /'
    fi
done
printf '\n%d minutes in all; logs in %s\n\n' $(((SECONDS - started + 59) / 60)) "$logs"
echo "$passed passed, $failed failed" >"$logs/summary"
cat "$logs/summary"
[[ $failed -eq 0 ]]
