"""What the tables make of reports that hold less, or worse, than a good run."""

import contextlib
import io
import json
import tempfile
import unittest
from pathlib import Path

import tables

NOTHING = {"lost": 0, "doubled": 0, "out_of_order": 0, "misrouted": 0}


class Tables(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def report(self, comparison, run, name, cpu=1000, rate=1000, deliveries=(), warnings=(), **figures):
        good = {
            "server": {"cpu_per_delivery": cpu},
            "delivery": {"p99": 1_000_000},
            "delivery_rate": rate,
            "deliveries": NOTHING | dict(deliveries),
            "unanswered": 0,
            "unsent": 0,
            "gone": [],
            "connected": 1001,
        } | {name: {} for name in ("connect_errors", "disconnects", "publish_errors")}
        whole = {"name": name, "load": {"clients": 1000, "rooms": 500}, "figures": good | figures, "warnings": list(warnings)}
        (self.folder / f"{comparison}.{run}.{name}.json").write_text(json.dumps(whole))

    def rows(self, *wanted):
        with contextlib.redirect_stdout(io.StringIO()) as told:
            code = tables.main([str(self.folder), *wanted])
        return code, told.getvalue().splitlines()[2:]

    def test_both_runs_are_shown_and_their_mean_is_judged(self):
        for run, server, cpu in [(1, "roomcast", 40_000), (2, "centrifugo", 90_000), (3, "centrifugo", 110_000), (4, "roomcast", 56_000)]:
            self.report("chat", run, server, cpu=cpu)
        code, [row, _] = self.rows("chat")
        self.assertEqual(code, 0)
        self.assertIn("| 40.00 µs; 56.00 µs | 90.00 µs; 110.00 µs |", row)
        self.assertIn("0.48 × centrifugo (means) (bound: <= 0.5) |", row)

    def test_who_left_something_undone_does_not_win(self):
        faults = [
            ({"deliveries": {"lost": 1234}}, "1,234 lost"),
            ({"connect_errors": {"refused": 2}}, "2 connects refused"),
            ({"unsent": 7}, "7 unsent"),
            ({"unanswered": 1}, "1 unanswered"),
            ({"publish_errors": {"100": 3}}, "3 publishes refused"),
            ({"disconnects": {"3008": 4}}, "4 closed"),
            ({"connected": 990}, "10 not connected"),
        ]
        self.report("chat", 2, "centrifugo", cpu=100_000)
        for figures, told in faults:
            self.report("chat", 1, "roomcast", cpu=10_000, **figures)
            code, [row, _] = self.rows("chat")
            self.assertEqual(code, 99, told)
            self.assertIn(f"10.00 µs ({told}) |", row)
            self.assertIn("(bound: <= 0.5) MISSED; NOT ALL DONE by roomcast |", row)

    def test_what_the_other_left_undone_is_told_with_the_verdict(self):
        self.report("chat", 1, "roomcast", cpu=10_000)
        self.report("chat", 2, "centrifugo", cpu=100_000, deliveries={"lost": 9})
        code, [row, _] = self.rows("chat")
        self.assertEqual(code, 0)
        self.assertIn("100.00 µs (9 lost) |", row)
        self.assertIn("0.10 × centrifugo (bound: <= 0.5); NOT ALL DONE by centrifugo |", row)

    def test_who_was_measured_by_a_busy_tool_is_no_measure(self):
        late = ["one publish in a hundred was sent 3 ms or more after its time by the generator"]
        self.report("chat", 1, "roomcast", cpu=10_000)
        self.report("chat", 2, "centrifugo", cpu=100_000, warnings=late)
        code, [row, _] = self.rows("chat")
        self.assertEqual(code, 99)
        self.assertIn("MISSED; THE LOAD TOOL WAS BUSY with centrifugo", row)
        self.report("saturation", 1, "centrifugo", rate=100, warnings=late)
        self.report("saturation", 2, "roomcast", rate=1000)
        self.assertEqual(self.rows("saturation")[0], 0, "it is asked for more than anybody can do")

    def test_a_bare_loop_that_was_not_kept_busy_is_no_measure(self):
        self.report("fanout", 1, "floor", cpu=6_000)
        self.report("fanout", 2, "roomcast", cpu=6_600)
        self.assertEqual(self.rows("fanout")[0], 0)
        self.report("fanout", 1, "floor", cpu=6_000, unsent=5)
        code, [row] = self.rows("fanout")
        self.assertEqual(code, 99)
        self.assertIn("MISSED; NOT ALL DONE by floor |", row)

    def test_what_nobody_could_send_of_an_overload_is_shown_and_no_fault(self):
        self.report("saturation", 1, "centrifugo", unsent=90)
        self.report("saturation", 2, "roomcast", rate=3000, unsent=50)
        code, [row] = self.rows("saturation")
        self.assertEqual(code, 0)
        self.assertIn("| 3,000 (50 unsent) | 1,000 (90 unsent) |", row)
        self.assertNotIn("NOT ALL DONE", row)

    def test_what_was_not_measured_is_a_missed_bound(self):
        self.report("chat", 1, "roomcast")
        for cost in (None, {"cpu_per_delivery": None}, {"cpu_per_delivery": 0}):
            self.report("chat", 2, "centrifugo", server=cost)
            code, [row, _] = self.rows("chat")
            self.assertEqual(code, 99)
            self.assertIn("not measured (bound: <= 0.5 × centrifugo) MISSED", row)

    def test_there_is_no_half_of_nothing(self):
        self.report("most", 1, "centrifugo", rate=0)
        with self.assertRaisesRegex(SystemExit, "centrifugo delivered nothing"):
            tables.main(["--half-of", "centrifugo", str(self.folder)])
        self.report("most", 1, "centrifugo", rate=4000)
        self.assertEqual(tables.half_of("centrifugo", self.folder), 1000)


if __name__ == "__main__":
    unittest.main()
