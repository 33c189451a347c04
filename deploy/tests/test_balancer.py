"""The balancer's file: HAProxy takes it, and it keeps the promises that a drain rests on."""

import re

from repository import DEPLOY, assert_accepts, run

FILE = DEPLOY / "haproxy.cfg"
LINES = [line.strip() for line in FILE.read_text().splitlines() if line.strip() and not line.strip().startswith("#")]
LOOPBACK = {"BALANCER_MAXCONN": "1000", **{f"GATEWAY_{number}": "127.0.0.1:1" for number in (1, 2, 3)}}


def test_haproxy_accepts_it_without_a_warning():
    assert "warning" not in assert_accepts("haproxy", "-c", "-f", str(FILE), env=LOOPBACK).lower()


def test_haproxy_can_refuse_it(tmp_path):
    broken = tmp_path / "haproxy.cfg"
    broken.write_text(FILE.read_text().replace("timeout tunnel", "timeout tunel"))
    assert run("haproxy", "-c", "-f", str(broken), env=LOOPBACK).returncode != 0


def test_open_sessions_outlive_a_failed_check_and_a_silent_ping_interval():
    assert not [line for line in LINES if "on-marked-down" in line]
    tunnel = next(line for line in LINES if line.startswith("timeout tunnel"))
    assert int(re.search(r"(\d+)s$", tunnel)[1]) >= 75, "three pings of 25 s"
    assert "balance leastconn" in LINES
    assert any("uri /readyz" in line for line in LINES if line.startswith("http-check send"))
