"""Three real nodes behind the real balancer, watched by the real Prometheus, with the files that compose uses: what an
operator relies on holds. The tests that stop nodes put them back before they end."""

import json
import re
import signal
import time

import pytest
import yaml
from websockets.exceptions import InvalidStatus

from cluster import NODES, SECRET, binary, clean_environment, eventually, get
from repository import DEPLOY, ROOT, assert_accepts

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]


def on_every_node(connect, room: str) -> dict:
    """One client in the room for each node, by the node's name. The balancer gives the next one to the emptiest node."""
    found = {}
    for number in range(12):
        client = connect(f"user-{number}")
        found.setdefault(client.node, client.subscribe(room))
        if len(found) == len(NODES):
            return found
    raise AssertionError(f"12 connections all went to {sorted(found)}")


def test_what_is_said_on_one_node_is_heard_on_all(connect):
    clients = on_every_node(connect, "chat:lobby")
    for node, speaker in clients.items():
        reply = speaker.call("publish", channel="chat:lobby", data={"from": node})
        assert "error" not in reply, reply
        for listener in clients.values():
            listener.hears("chat:lobby", {"from": node})


def test_room_rules_hold(cluster, connect):
    alice, bob = connect("alice"), connect("bob")
    alice.subscribe("lobby").subscribe("notifications:releases").subscribe("personal:#alice")
    assert bob.call("subscribe", channel="personal:#alice")["error"]["code"] == 103
    assert bob.call("subscribe", channel="nowhere:lobby")["error"]["code"] == 102
    assert bob.call("publish", channel="lobby", data=1)["error"]["code"] == 103, "only those inside may speak"
    assert alice.call("publish", channel="notifications:releases", data=1)["error"]["code"] == 103
    for name in NODES:
        assert "error" not in cluster.publish(name, "notifications:releases", {"by": name})
        alice.hears("notifications:releases", {"by": name})


def test_pages_of_other_origins_stay_outside(connect):
    connect("alice", origin="http://localhost:8000")
    with pytest.raises(InvalidStatus) as refused:
        connect("mallory", origin="https://elsewhere.example")
    assert refused.value.response.status_code == 403


def test_internal_pages_are_not_reached_through_the_balancer(cluster):
    for path in ("/metrics", "/readyz", "/api/info"):
        assert get(f"http://127.0.0.1:{cluster.balancer}{path}")[0] == 404
    status, page = get(f"http://127.0.0.1:{cluster.internal['gateway-1']}/metrics")
    assert status == 200 and "roomcast_connections" in page


@pytest.mark.parametrize("name", NODES)
def test_the_binary_asks_for_its_own_health(cluster, name):
    address = f"127.0.0.1:{cluster.internal[name]}"
    assert_accepts(binary(), "health", env=clean_environment(ROOMCAST_INTERNAL_LISTEN=address))


@pytest.mark.parametrize("file", ["roomcast.toml", "kubernetes/roomcast.toml"])
def test_settings_of_the_image_and_compose_are_known(file):
    image = dict(re.findall(r"(ROOMCAST_\w+)=(\S+)", (DEPLOY / "Dockerfile").read_text()))
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["gateway-1"]["environment"]
    environment = image | compose | {"ROOMCAST_AUTH_HMAC_SECRET": SECRET, "ROOMCAST_API_KEY": "a-key"}
    assert {"ROOMCAST_LISTEN", "ROOMCAST_INTERNAL_LISTEN"} <= environment.keys()
    listing = assert_accepts(
        binary(), "--config", str(DEPLOY / file), "check-config", env=clean_environment(**environment)
    )
    assert SECRET not in listing


def test_prometheus_sees_every_node(cluster):
    def all_up() -> bool:
        targets = json.loads(get(f"http://127.0.0.1:{cluster.prometheus}/api/v1/targets")[1])["data"]["activeTargets"]
        return len(targets) == len(NODES) + 1 and all(target["health"] == "up" for target in targets)

    eventually(all_up, "all targets are up")
    connections = eventually(lambda: cluster.query("roomcast_connections"), "connections are recorded")
    addresses = {f"127.0.0.1:{port}" for port in cluster.internal.values()}
    eventually(lambda: {series["metric"]["instance"] for series in cluster.query("roomcast_connections")} == addresses,
               f"one series a node, not {connections}")
    assert {series["value"][1] for series in cluster.query("roomcast_broker_connected")} == {"1"}


def test_prometheus_counts_clients(cluster, connect):
    for number in range(5):
        connect(f"user-{number}")
    eventually(lambda: [series["value"][1] for series in cluster.query("roomcast:connections:sum")] == ["5"],
               "the recorded sum counts five connections")


def test_every_rule_runs_and_none_fires(cluster):
    rules = [rule for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
             for rule in group["rules"]]
    for rule in rules:
        cluster.query(rule["expr"])
    # Series that are there from the start: an alert on one that is not would stay silent for ever.
    for series in ("roomcast_build_info", "roomcast_draining", "roomcast_broker_connected",
                   'process_open_fds{job="roomcast"}', 'process_max_fds{job="roomcast"}',
                   'haproxy_backend_active_servers{proxy="gateways"} == 3'):
        eventually(lambda series=series: cluster.query(series), f"{series} is recorded")

    def evaluated() -> bool:
        groups = json.loads(get(f"http://127.0.0.1:{cluster.prometheus}/api/v1/rules")[1])["data"]["groups"]
        loaded = [rule for group in groups for rule in group["rules"]]
        return len(loaded) == len(rules) and all(rule["health"] == "ok" for rule in loaded)

    eventually(evaluated, "Prometheus has evaluated every rule")
    assert cluster.query('ALERTS{alertstate="firing"}') == []


def test_a_node_that_is_told_to_stop_hands_its_clients_over(cluster, connect):
    clients = on_every_node(connect, "chat:drain")
    leaving, staying = clients.pop("gateway-2"), clients
    process = cluster.signal("gateway-2", signal.SIGTERM)
    told = time.monotonic()

    eventually(lambda: cluster.ready("gateway-2")[0] == 503, "the node says that it is not ready", 3)
    assert "drain" in cluster.ready("gateway-2")[1]
    cluster.wait_until("gateway-2", "DOWN", 4)
    # The delay before the close is for the balancer: the session is still served, new ones go elsewhere.
    assert "error" not in leaving.call("publish", channel="chat:drain", data="last words")
    for client in staying.values():
        client.hears("chat:drain", "last words")
    for number in range(20):
        assert connect(f"newcomer-{number}").node != "gateway-2"
    assert process.poll() is None, "it goes on until shutdown.delay has passed"

    code, reason = leaving.wait_for_close(40)
    assert code == 3001, f"{code} {reason}"
    assert reason, "official clients give up on a close without a reason"
    assert process.wait(45) == 0
    assert time.monotonic() - told < 45, "shutdown.timeout"

    back = connect("user-back")
    assert back.node in staying
    back.subscribe("chat:drain")
    back.call("publish", channel="chat:drain", data="back again")
    for client in staying.values():
        client.hears("chat:drain", "back again")

    cluster.start_node("gateway-2")
    cluster.wait_until("gateway-2", "UP")


def test_a_killed_node_costs_no_new_client_anything(cluster, connect):
    clients = on_every_node(connect, "chat:kill")
    gone = clients.pop("gateway-3")
    cluster.signal("gateway-3", signal.SIGKILL).wait()
    for number in range(20):
        assert connect(f"user-{number}").node != "gateway-3"
    assert gone.wait_for_close(10)[0] == 1006, "no close frame came"
    cluster.wait_until("gateway-3", "DOWN")
    speaker, listener = clients.values()
    speaker.call("publish", channel="chat:kill", data="still here")
    listener.hears("chat:kill", "still here")

    cluster.start_node("gateway-3")
    cluster.wait_until("gateway-3", "UP")
    assert connect("late").node == "gateway-3", "the emptiest node is next"


def test_without_redis_no_node_is_offered_for_long_and_all_heal(cluster, connect):
    """A loss of Redis leaves sessions open. Restarted, Redis serves them again without a restart of any node."""
    clients = on_every_node(connect, "chat:redis")
    cluster.signal("redis", signal.SIGKILL).wait()
    address = f"http://127.0.0.1:{cluster.internal['gateway-1']}/metrics"
    eventually(lambda: "\nroomcast_broker_connected 0" in get(address)[1], "the loss is seen", 15)
    assert cluster.ready("gateway-1")[0] == 200, "ready.broker_grace has not passed"
    cluster.start_redis()
    for port in cluster.internal.values():
        eventually(lambda port=port: "\nroomcast_broker_connected 1" in get(f"http://127.0.0.1:{port}/metrics")[1],
                   "every room is heard again", 20)
    speaker = clients["gateway-1"]
    reply = speaker.call("publish", channel="chat:redis", data="healed")
    assert "error" not in reply, reply
    for listener in clients.values():
        listener.hears("chat:redis", "healed")
