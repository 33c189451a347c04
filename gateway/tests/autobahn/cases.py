"""The cases of the Autobahn test suite against a server that echoes.

    cases.py ADDRESS plain|deflate|deflate-all

Without compression: groups 1 to 7 and 10, 247 cases. With it: groups 12 and 13, 216 cases, or the 60 of them with short
messages, as the long ones take two minutes. What a case finds is OK, or one of what the suite itself lets pass
(NON_STRICT, INFORMATIONAL); offers that ask for a smaller window of the server are declined, which it calls UNIMPLEMENTED.
Anything else fails.
"""

import asyncio
import collections
import os
import sys

import kosoku

DEFLATE = [(12, subgroup) for subgroup in range(1, 6)] + [(13, subgroup) for subgroup in range(1, 8)]
CASES = {
    "plain": [f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 10)],
    "deflate": [f"{group}.{subgroup}.{case}" for group, subgroup in DEFLATE for case in range(1, 6)],
    "deflate-all": ["12.*", "13.*"],
}
COUNT = {"plain": 247, "deflate": 60, "deflate-all": 216}
GOOD = {"OK", "NON_STRICT", "INFORMATIONAL"}


async def results(address, cases):
    try:
        return await kosoku.run_fuzzingclient(f"ws://{address}", cases=cases, concurrency=4)
    except kosoku.FailureError as failed:
        return failed.results


def main(address, kind):
    found = asyncio.run(results(address, CASES[kind]))
    good = GOOD if kind == "plain" else GOOD | {"UNIMPLEMENTED"}
    counts = collections.Counter(name(result.behavior) for result in found)
    bad = [result for result in found if not {name(result.behavior), name(result.behavior_close)} <= good]
    for result in bad:
        print(result)
    print(kind, dict(counts))
    print(f"{len(found) - len(bad)} passed, {len(bad)} failed")
    if len(found) != COUNT[kind]:
        print(f"{len(found)} cases were run, not {COUNT[kind]}")
        return 1
    return 1 if bad else 0


def name(behavior):
    return str(behavior).rsplit(".")[-1]


if __name__ == "__main__":
    status = main(*sys.argv[1:])
    # All is judged and said. The suite's native threads may still run, and the end of the interpreter aborts beneath them.
    sys.stdout.flush()
    os._exit(status)
