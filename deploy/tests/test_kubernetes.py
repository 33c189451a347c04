"""The Kubernetes base: rendered, and held against strict schemas of every supported version."""

import copy
import json
import pathlib
import subprocess
import tomllib

import kubernetes_validate
import pytest

from repository import DEPLOY, assert_accepts, documents, program, run

BASE = DEPLOY / "kubernetes"
SCHEMAS = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
VERSIONS = sorted({
    folder.name.removeprefix("v").split("-")[0] for folder in SCHEMAS.iterdir() if folder.name.endswith("-local-strict")
}, key=lambda version: [int(part) for part in version.split(".")])
# The oldest version whose API has everything that the base uses.
OLDEST = "1.28.0"
SUPPORTED = VERSIONS[VERSIONS.index(OLDEST):]


@pytest.fixture(scope="module")
def objects() -> list[dict]:
    return documents(assert_accepts("kubectl", "kustomize", str(BASE)))


@pytest.fixture(scope="module")
def deployment(objects) -> dict:
    return one(objects, "Deployment", "roomcast")


def one(objects: list[dict], kind: str, name: str) -> dict:
    """The object of that kind and name."""
    found = [item for item in objects if item["kind"] == kind and item["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


@pytest.mark.parametrize("version", SUPPORTED)
def test_every_object_is_valid(objects, version):
    for item in objects:
        kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("break_it", [
    lambda pod: pod.update(terminationGracePeriodSecond=60),
    lambda pod: pod.update(terminationGracePeriodSeconds="60s"),
    lambda pod: pod["containers"][0]["readinessProbe"]["httpGet"].pop("port"),
])
def test_faults_are_found(deployment, break_it):
    broken = copy.deepcopy(deployment)
    break_it(broken["spec"]["template"]["spec"])
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, SUPPORTED[-1], strict=True)


def test_a_folder_that_does_not_render_is_found(tmp_path):
    (tmp_path / "kustomization.yaml").write_text("resources: [nowhere.yaml]\n")
    assert run("kubectl", "kustomize", str(tmp_path)).returncode != 0


def test_pods_are_hardened(deployment):
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }


def test_a_node_has_time_to_drain_and_never_restarts_for_redis(deployment):
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["terminationGracePeriodSeconds"] == 60, "above shutdown.timeout, 45s"
    assert "lifecycle" not in container, "the delay is the node's own"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["startupProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_services_and_budget_select_the_pods(objects, deployment):
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    ports = {port["name"]: port["containerPort"] for port in deployment["spec"]["template"]["spec"]["containers"][0]["ports"]}
    assert ports == {"clients": 8000, "internal": 9000}
    for name, port in (("roomcast", "clients"), ("roomcast-internal", "internal")):
        service = one(objects, "Service", name)["spec"]
        assert service["selector"].items() <= labels
        assert [entry["targetPort"] for entry in service["ports"]] == [port]
    budget = one(objects, "PodDisruptionBudget", "roomcast")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= labels
    policy = one(objects, "NetworkPolicy", "roomcast")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels
    open_to_all = [rule["ports"] for rule in policy["ingress"] if "from" not in rule]
    assert open_to_all == [[{"port": "clients"}]], "the internal port is for those who are named"


def test_secrets_are_named_not_held(objects, deployment):
    assert not [item for item in objects if item["kind"] == "Secret"]
    environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    by_secret = {entry["name"] for entry in environment if "secretKeyRef" in entry.get("valueFrom", {})}
    assert by_secret == {"ROOMCAST_AUTH_HMAC_SECRET", "ROOMCAST_REDIS_URL", "ROOMCAST_API_KEY"}


def test_settings_roll_the_pods(objects, deployment):
    config = next(item for item in objects if item["kind"] == "ConfigMap")
    assert config["metadata"]["name"] != "roomcast", "the name carries the content's hash"
    assert deployment["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] == config["metadata"]["name"]


def test_room_rules_are_those_of_compose():
    """kustomize takes no file from outside its folder: the rules stand twice and may not part."""
    here = tomllib.loads((BASE / "roomcast.toml").read_text())
    compose = tomllib.loads((DEPLOY / "roomcast.toml").read_text())
    for key in ("rooms", "namespaces"):
        assert here[key] == compose[key]


def test_the_service_monitor_finds_the_internal_service(objects):
    rendered = documents(assert_accepts("kubectl", "kustomize", str(BASE / "monitoring")))
    monitor = one(rendered, "ServiceMonitor", "roomcast")["spec"]
    matching = [item for item in objects if item["kind"] == "Service"
                and monitor["selector"]["matchLabels"].items() <= item["metadata"]["labels"].items()]
    assert [service["metadata"]["name"] for service in matching] == ["roomcast-internal"]
    assert monitor["endpoints"][0]["port"] in [port["name"] for port in matching[0]["spec"]["ports"]]
    assert matching[0]["metadata"]["labels"][monitor["jobLabel"]] == "roomcast", "the alerts name the job"


def against_the_operators_schema(item: dict) -> str:
    """Empty, or what the operator's schema says against it."""
    here = pathlib.Path(__file__).parent
    assert (here / "node_modules").is_dir(), "`make deploy-tools` installs the operator's schemas"
    done = subprocess.run([program("node"), "service_monitor.mjs"], cwd=here, input=json.dumps(item), text=True,
                          capture_output=True, timeout=60, check=False)
    return done.stderr if done.returncode else ""


def test_the_service_monitor_is_valid():
    item = documents(assert_accepts("kubectl", "kustomize", str(BASE / "monitoring")))[0]
    assert against_the_operators_schema(item) == ""
    item["spec"]["endpoints"][0]["interval"] = 15
    assert "interval" in against_the_operators_schema(item), "a fault is found"
