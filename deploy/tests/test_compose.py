"""The compose file: its schema, and what the schema lets pass (keys spelt wrong, services that are not there)."""

import copy
import os
import re
import subprocess

import compose_spec
import pytest
import yaml

from repository import ROOT, assert_accepts, program

TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
GATEWAYS = ["gateway-1", "gateway-2", "gateway-3"]


def faults(compose: dict) -> list[str]:
    """What is wrong with a compose file beyond the types of its values."""
    known = {field.alias or name for name, field in compose_spec.Service.model_fields.items()}
    found = [f"unknown key {key}" for key in compose if key not in ("name", "services", "volumes") and not key.startswith("x-")]
    for name, service in compose["services"].items():
        found += [f"{name}: unknown key {key}" for key in service if key not in known]
        found += [f"{name}: depends on {other}, which is not there"
                  for other in service.get("depends_on", {}) if other not in compose["services"]]
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy" and "healthcheck" not in compose["services"].get(other, {}):
                found.append(f"{name}: waits for the health of {other}, which has no check")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./") and not (ROOT / source).exists():
                found.append(f"{name}: {source} is not there")
            if not source.startswith("./") and source not in compose.get("volumes", {}):
                found.append(f"{name}: volume {source} is not declared")
        if not re.search(r":[^:/]*\d", service.get("image", ":0")) and "build" not in service:
            found.append(f"{name}: image without a version")
    return found


def test_the_schema_accepts_it():
    compose_spec.ComposeSpecification.model_validate(COMPOSE)
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(COMPOSE))


def test_no_key_is_misspelt_and_no_reference_dangles():
    assert faults(COMPOSE) == []


@pytest.mark.parametrize("break_it", [
    lambda compose: compose["services"]["gateway-1"].update(stop_grace_perod="60s"),
    lambda compose: compose["services"]["balancer"]["depends_on"].update({"gateway-4": {"condition": "service_started"}}),
    lambda compose: compose["services"]["redis"].pop("healthcheck"),
    lambda compose: compose["services"]["redis"].update(image="redis"),
    lambda compose: compose["services"]["prometheus"]["volumes"].append("./deploy/nowhere:/nowhere"),
    lambda compose: compose.update(volume={}),
])
def test_faults_are_found(break_it):
    broken = copy.deepcopy(COMPOSE)
    break_it(broken)
    assert len(faults(broken)) >= 1


def test_only_balancer_and_prometheus_are_published():
    ports = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert ports == {"balancer": ["8000:8000"], "prometheus": ["127.0.0.1:9090:9090"]}


def test_without_a_secret_it_says_what_to_set():
    for gateway in GATEWAYS:
        secret = COMPOSE["services"][gateway]["environment"]["ROOMCAST_AUTH_HMAC_SECRET"]
        assert re.fullmatch(r"\$\{ROOMCAST_AUTH_HMAC_SECRET:\?.*32 bytes.*\}", secret)
    # Any other `$` would be taken for a variable.
    assert TEXT.replace("ROOMCAST_AUTH_HMAC_SECRET=$(openssl", "").count("$") == 1


def test_gateways_differ_in_their_names_alone():
    plain = []
    for gateway in GATEWAYS:
        service = copy.deepcopy(COMPOSE["services"][gateway])
        assert service["environment"].pop("ROOMCAST_NODE_NAME") == gateway
        plain.append(service)
    assert plain[0] == plain[1] == plain[2]
    assert plain[0]["read_only"] and plain[0]["cap_drop"] == ["ALL"]
    assert plain[0]["stop_grace_period"] == "60s", "above shutdown.timeout"


def test_redis_takes_its_command(tmp_path):
    """The options are real ones: Redis starts with them and has them in force."""
    command = COMPOSE["services"]["redis"]["command"]
    socket = tmp_path / "redis.sock"
    redis = subprocess.Popen(
        [program("redis-server"), *command[1:], "--port", "0", "--unixsocket", str(socket)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={"PATH": os.environ["PATH"]},
    )
    try:
        printed = []
        for line in redis.stdout:
            printed.append(line)
            if "ready to accept connections" in line:
                break
        else:
            raise AssertionError("redis-server did not start:\n" + "".join(printed))
        limits = assert_accepts("redis-cli", "-s", str(socket), "config", "get", "client-output-buffer-limit")
        assert "pubsub 268435456 67108864 60" in limits
        assert "noeviction" in assert_accepts("redis-cli", "-s", str(socket), "config", "get", "maxmemory-policy")
    finally:
        redis.terminate()
        redis.wait(10)
