"""The reports of compare.sh as the tables of README.md. Takes the folder of the reports and the names of comparisons;
ends with 99 where a bound is missed. With --half-of NAME FILE instead: half of what that server delivered, per second."""

import json
import sys
from pathlib import Path


class Report:
    """One report: the figures of each server by its name."""

    def __init__(self, path):
        whole = json.loads(path.read_text())
        self.load = whole["load"]
        self.floor = whole["floor"]
        self.servers = {one["name"]: one["figures"] for one in [whole, *whole["against"]]}

    def figure(self, server, *names):
        found = self.servers[server]
        for name in names:
            found = found and found[name]
        return found

    def losses(self, server):
        found = self.servers[server]["deliveries"]
        return sum(found[name] for name in ("lost", "doubled", "out_of_order"))


def microseconds(nanoseconds):
    return f"{nanoseconds / 1000:.2f} µs"


def milliseconds(nanoseconds):
    return f"{nanoseconds / 1e6:.2f} ms"


def kilobytes(count):
    return f"{count / 1024:.2f} KB"


def thousands(rate):
    return f"{rate:,.0f}"


# What is told of each report: the file's name, what it is about, where it stands, how it is written, and what is asked of
# it (the server, whether at most or at least, and how many times that server's figure).
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


def cell(report, server, names, write):
    if server not in report.servers or report.figure(server, *names) is None:
        return ""
    lost = report.losses(server)
    gone = sum(report.servers[server]["disconnects"].values())
    faults = [f"{lost:,} lost"] * bool(lost) + [f"{gone:,} closed"] * bool(gone)
    return write(report.figure(server, *names)) + (f" ({', '.join(faults)})" if faults else "")


def verdict(report, names, asked):
    """What was asked, as a text, and whether it holds."""
    if not asked:
        return "", True
    server, least, times = asked
    figures = report.floor if server == "floor" else report.servers[server]
    for name in names:
        figures = figures[name]
    ratio = report.figure("roomcast", *names) / figures
    holds = ratio <= times if least == "<=" else ratio >= times
    return f"{ratio:.2f} × {server} (bound: {least} {times}){'' if holds else ' MISSED'}", holds


def tables(folder, wanted):
    print("| load | what | Roomcast | Centrifugo | uWebSockets | Roomcast is |\n|---|---|---|---|---|---|")
    missed = False
    for name, what, names, write, asked in ROWS:
        if name not in wanted and not (name == "most" and "half" in wanted):
            continue
        report = Report(folder / f"{name}.json")
        cells = [cell(report, server, names, write) for server in ("roomcast", "centrifugo", "uwebsockets")]
        text, holds = verdict(report, names, asked)
        missed |= not holds
        print("|", " | ".join([name, what, *cells, text]), "|")
    return 99 if missed else 0


def main(arguments):
    if arguments[0] == "--half-of":
        report = Report(Path(arguments[2]))
        clients = report.load["clients"] / report.load["rooms"]
        print(int(report.figure(arguments[1], "delivery_rate") / clients / 2))
        return 0
    return tables(Path(arguments[0]), arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
