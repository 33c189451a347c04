"""Prometheus: configuration, rules, their unit tests, and that they speak of series that exist."""

import re

import yaml

from repository import DEPLOY, ROOT, assert_accepts, run

FOLDER = DEPLOY / "prometheus"
GROUPS = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
RULES = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = {rule["alert"] for rule in RULES if "alert" in rule}


def declared() -> dict[str, str]:
    """Series of the gateway and their kind, as `gateway/src/metrics.rs` registers them."""
    source = (ROOT / "gateway" / "src" / "metrics.rs").read_text()
    body = source[source.index("pub fn new()"):]
    calls = re.findall(r'\b(counter|counters|gauge|gauges|histogram|histograms)\(\s*r,\s*"(\w+)"', body)
    assert len(calls) > 15, "metrics.rs is written differently than this test reads it"
    return {f"roomcast_{name}": kind.rstrip("s") for kind, name in calls} | {"roomcast_build_info": "gauge"}


def test_promtool_accepts_the_configuration():
    assert_accepts("promtool", "check", "config", "prometheus.yml", cwd=FOLDER)
    assert_accepts("promtool", "check", "rules", "alerts.yml", cwd=FOLDER)


def test_alerts_do_as_they_say():
    assert_accepts("promtool", "test", "rules", "alerts_test.yml", cwd=FOLDER)


def test_the_rule_tests_can_fail(tmp_path):
    rules = (FOLDER / "alerts.yml").read_text()
    (tmp_path / "alerts.yml").write_text(rules.replace("roomcast_broker_connected == 0", "roomcast_broker_connected == 2"))
    (tmp_path / "alerts_test.yml").write_text((FOLDER / "alerts_test.yml").read_text())
    done = run("promtool", "test", "rules", "alerts_test.yml", cwd=tmp_path)
    assert done.returncode != 0 and "RoomcastBrokerDisconnected" in done.stdout


def test_every_alert_is_tested_and_explained():
    tests = (FOLDER / "alerts_test.yml").read_text()
    handbook = (ROOT / "docs" / "OPERATIONS.md").read_text()
    for alert in ALERTS:
        assert f'alertname="{alert}"' in tests, f"{alert} has no unit test"
        assert f"### {alert}\n" in handbook, f"{alert} has no entry in docs/OPERATIONS.md"
    explained = set(re.findall(r"^### (Roomcast\w+)$", handbook, flags=re.MULTILINE))
    assert explained == ALERTS, "the handbook speaks of alerts that are not there"
    for rule in RULES:
        if "alert" in rule:
            assert rule["annotations"]["runbook"] == f"docs/OPERATIONS.md#{rule['alert'].lower()}"


def test_rules_speak_of_series_that_exist():
    series = declared()
    known = {"up", "process_open_fds", "process_max_fds", "haproxy_backend_active_servers"}
    known |= {rule["record"] for rule in RULES if "record" in rule}
    for name, kind in series.items():
        known |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    for rule in RULES:
        bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|by \([^)]*\)", "", rule["expr"])
        names = set(re.findall(r"\b(?:up|(?:roomcast|process|haproxy)[a-z0-9_:]*)\b", bare))
        assert names and names <= known, f"{rule.get('alert') or rule.get('record')}: {names - known}"


def test_the_handbook_lists_every_series():
    handbook = (ROOT / "docs" / "OPERATIONS.md").read_text()
    listed = set(re.findall(r"^\| `(roomcast_\w+)", handbook, flags=re.MULTILINE))
    assert listed == set(declared())


def test_targets_are_the_services_of_compose():
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    nodes = yaml.safe_load((FOLDER / "targets" / "roomcast.yml").read_text())[0]["targets"]
    assert nodes == [f"{name}:9000" for name in services if name.startswith("gateway-")]
    balancer = yaml.safe_load((FOLDER / "targets" / "balancer.yml").read_text())[0]["targets"]
    assert [target.split(":")[0] in services for target in balancer] == [True]
