#!/usr/bin/env bash
# The fuzzing targets (gateway/fuzz) with libFuzzer, one after the other.
#
#   scripts/fuzz.sh [SECONDS [TARGET...]]
#
# 60 seconds each and all of them unless told otherwise. Needs a C++ compiler; cargo-bolero is installed below target/ by the first
# run, and what is compiled for it lies there too. An input that breaks a target is written to its folder `crashes`
# (gateway/fuzz/targets/__fuzz__), where the test of the same name plays it from then on: it is mended, and kept.
#
# What a search has found to be worth looking at lies in target/fuzz/corpus and is where the next one begins. What is committed
# (`corpus`) is a small choice of it: copy new inputs there, and `cargo bolero reduce` throws out those that reach nothing of
# their own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-60}
shift || true

version=0.13.5
tools=$PWD/target/tools
if [[ $("$tools/bin/cargo-bolero" --version 2>/dev/null) != "cargo-bolero $version" ]]; then
    CARGO_TARGET_DIR=$tools/build cargo install --quiet --locked --root "$tools" --version "$version" cargo-bolero
fi
export PATH=$tools/bin:$PATH
# The compiler is a stable one, of which only the counters of what was reached are asked, and no sanitizer.
options=(--package roomcast-fuzz --rustc-bootstrap --sanitizer NONE)

if [[ $# -gt 0 ]]; then
    targets=("$@")
else
    # Every test of the package is a target.
    mapfile -t targets < <(cd gateway/fuzz/targets &&
        awk '/^#\[test\]$/ { getline; sub(/\(.*/, "", $2); sub(/\.rs$/, "", FILENAME); print FILENAME "::" $2 }' *.rs)
fi

failed=()
for target in "${targets[@]}"; do
    found=target/fuzz/corpus/${target//::/__}
    kept=gateway/fuzz/targets/__fuzz__/${target//::/__}/corpus
    mkdir -p "$found" "$kept"
    log=target/fuzz/${target//::/__}.log
    if cargo bolero test "${options[@]}" -T "${seconds}s" --corpus-dir "$PWD/$found" --engine-args="$PWD/$kept -rss_limit_mb=512 -print_final_stats=1" "$target" >"$log" 2>&1; then
        echo "$target: $(sed -nE 's/^stat::number_of_executed_units: *//p' "$log") inputs in $seconds s"
    else
        failed+=("$target")
        echo "$target: FAILED; the end of $log:"
        tail -n 40 "$log"
    fi
done
echo "$((${#targets[@]} - ${#failed[@]})) passed, ${#failed[@]} failed${failed[*]:+: ${failed[*]}}"
[[ ${#failed[@]} -eq 0 ]]
