"""The reports of compare.sh as the tables of README.md. Takes the folder of the reports and the names of comparisons;
ends with 99 where a bound is missed. Instead of that: --half-of SERVER FOLDER prints half of what that server delivered in
`most`, per second and room member; --faults FILE what the server of that report did not do, or did wrong."""

import json
import sys
from pathlib import Path

# Comparisons that ask for more than anybody takes: what could not be sent is no fault there.
OVERLOADS = ("saturation", "most")


class Run:
    """One report: the figures of a server under a load."""

    def __init__(self, path):
        whole = json.loads(path.read_text())
        self.comparison = path.name.split(".")[0]
        self.server = whole["name"]
        self.load = whole["load"]
        self.figures = whole["figures"]
        self.warnings = whole["warnings"]

    def figure(self, *names):
        """None where it was not measured."""
        found = self.figures
        for name in names:
            found = None if found is None else found.get(name)
        return found

    def undone(self):
        """What was not done, or was done wrong, and how often."""
        found = self.figures
        counts = {name.replace("_", " "): found["deliveries"][name] for name in ("lost", "doubled", "out_of_order", "misrouted")}
        counts["not connected"] = max(0, self.load["clients"] - found["connected"])
        counts["connects refused"] = sum(found["connect_errors"].values())
        counts["closed"] = sum(found["disconnects"].values())
        counts["publishes refused"] = sum(found["publish_errors"].values())
        counts["unanswered"] = found["unanswered"]
        counts["unsent"] = found["unsent"]
        counts["processes ended"] = len(found["gone"])
        return {name: count for name, count in counts.items() if count}

    def disturbed(self):
        """Whether the load tool itself had too little time, where it is asked for no more than it can do."""
        told = any("generator" in warning or "workers used" in warning for warning in self.warnings)
        return told and self.comparison not in OVERLOADS

    def faults(self):
        return {name: count for name, count in self.undone().items() if name != "unsent" or self.comparison not in OVERLOADS}


def runs(folder, comparison):
    """The runs of each server, in their order, by its name."""
    found = {}
    for path in sorted(folder.glob(f"{comparison}.*.json"), key=lambda path: int(path.name.split(".")[1])):
        run = Run(path)
        found.setdefault(run.server, []).append(run)
    return found


def listed(counts):
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def microseconds(nanoseconds):
    return f"{nanoseconds / 1000:.2f} µs"


def milliseconds(nanoseconds):
    return f"{nanoseconds / 1e6:.2f} ms"


def kilobytes(count):
    return f"{count / 1024:.2f} KB"


def thousands(rate):
    return f"{rate:,.0f}"


# What is told of each comparison: its name, what it is about, where that stands, how it is written, and what is asked of it
# (the server, whether at most or at least, and how many times that server's figure).
ROWS = [
    ("fanout", "CPU per delivery", ("server", "cpu_per_delivery"), microseconds, ("floor", "<=", 1.2)),
    ("saturation", "deliveries per second", ("delivery_rate",), thousands, ("centrifugo", ">=", 3)),
    ("idle", "RSS per connection", ("server", "rss_per_connection"), kilobytes, None),
    ("idle", "CPU per idle connection and second", ("server", "cpu_per_idle_second"), microseconds, None),
    ("idle", "CPU per connect", ("server", "cpu_per_connect"), microseconds, ("centrifugo", "<=", 0.5)),
    ("chat", "CPU per delivery, all nodes", ("server", "cpu_per_delivery"), microseconds, ("centrifugo", "<=", 0.5)),
    ("chat", "p99", ("delivery", "p99"), milliseconds, None),
    ("most", "deliveries per second", ("delivery_rate",), thousands, None),
    ("half", "p99", ("delivery", "p99"), milliseconds, ("centrifugo", "<=", 0.5)),
    ("half", "CPU per delivery, all nodes", ("server", "cpu_per_delivery"), microseconds, None),
]


def mean(some, names):
    """Of all these runs; None where one of them did not measure it, or nobody ran."""
    values = [run.figure(*names) for run in some]
    return None if not values or None in values else sum(values) / len(values)


def cell(some, names, write):
    """The figure of each run, with what was not done to get it."""
    return "; ".join(written(run, names, write) for run in some)


def written(run, names, write):
    value, undone = run.figure(*names), run.undone()
    return ("not measured" if value is None else write(value)) + (f" ({listed(undone)})" if undone else "")


def verdict(found, names, asked):
    """What was asked, as a text, and whether it holds. Whoever left something undone has won nothing."""
    guilty = [server for server, some in found.items() if any(run.faults() for run in some)]
    disturbed = [server for server, some in found.items() if any(run.disturbed() for run in some)]
    guilt = "; ".join(
        f"{what} {', '.join(servers)}"
        for what, servers in [("NOT ALL DONE by", guilty), ("THE LOAD TOOL WAS BUSY with", disturbed)]
        if servers
    )
    if not asked:
        return guilt, True
    server, least, times = asked
    ours, theirs = (mean(found.get(name, []), names) for name in ("roomcast", server))
    # Nothing is done for nothing: a figure of 0 was not measured either.
    if not ours or not theirs:
        return "; ".join(filter(None, [f"not measured (bound: {least} {times} × {server}) MISSED", guilt])), False
    ratio = ours / theirs
    # A bare loop that could not send what was asked is no measure, nor is who was measured by a tool that had no time.
    honest = "roomcast" not in guilty and not (server == "floor" and "floor" in guilty) and server not in disturbed
    holds = (ratio <= times if least == "<=" else ratio >= times) and honest
    of = " (means)" if len(found["roomcast"]) > 1 else ""
    text = f"{ratio:.2f} × {server}{of} (bound: {least} {times}){'' if holds else ' MISSED'}"
    return "; ".join(filter(None, [text, guilt])), holds


def tables(folder, wanted):
    print("| load | what | Roomcast | Centrifugo | uWebSockets (one thread) | Roomcast is |\n|---|---|---|---|---|---|")
    missed = False
    for name, what, names, write, asked in ROWS:
        if name not in wanted and not (name == "most" and "half" in wanted):
            continue
        found = runs(folder, name)
        cells = [cell(found.get(server, []), names, write) for server in ("roomcast", "centrifugo", "uwebsockets")]
        text, holds = verdict(found, names, asked)
        missed |= not holds
        print("|", " | ".join([name, what, *cells, text]), "|")
    return 99 if missed else 0


def half_of(server, folder):
    some = runs(folder, "most").get(server, [])
    rate = mean(some, ("delivery_rate",))
    messages = int(rate * some[0].load["rooms"] / some[0].load["clients"] / 2) if rate else 0
    if not messages:
        sys.exit(f"{server} delivered nothing, so that there is no half of it: see most.*.{server}.* in {folder}")
    return messages


def main(arguments):
    if arguments[0] == "--half-of":
        print(half_of(arguments[1], Path(arguments[2])))
    elif arguments[0] == "--faults":
        print(listed(Run(Path(arguments[1])).faults()))
    else:
        return tables(Path(arguments[0]), arguments[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
