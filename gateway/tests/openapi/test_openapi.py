"""The description of the server API, as a node serves it, held against that node: what it promises for every call is what
comes, valid requests are carried out, and others are refused, over memory and over a real Redis."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
KEY = "a-key-of-the-tests"
PATIENCE_S = 30

# The same requests in every run.
SEED = "20"
EXAMPLES = "10"


class Node(NamedTuple):
    """A node that runs."""

    url: str
    kind: str


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until(what: str, holds):
    deadline = time.monotonic() + PATIENCE_S
    while not (found := holds()):
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.02)
    return found


def redis_answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        client.sendall(b"PING\r\n")
        return client.recv(16).startswith(b"+PONG")


@pytest.fixture(scope="module", params=["memory", "redis"])
def node(request, tmp_path_factory):
    """A node on each kind of broker."""
    folder = tmp_path_factory.mktemp("node")
    processes = []
    settings = {
        "PATH": os.environ["PATH"],
        "ROOMCAST_LISTEN": "127.0.0.1:0",
        "ROOMCAST_INTERNAL_LISTEN": "127.0.0.1:0",
        "ROOMCAST_AUTH_HMAC_SECRET": "a-secret-of-the-tests-that-is-long-enough",
        "ROOMCAST_API_KEY": KEY,
        "ROOMCAST_LOG_FORMAT": "json",
        "ROOMCAST_SHUTDOWN_DELAY": "0s",
        "ROOMCAST_SHUTDOWN_DRAIN": "0s",
    }

    def start(*command: str, env=None):
        with open(folder / f"{Path(command[0]).name}.log", "wb") as log:
            processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))
        return processes[-1]

    try:
        if request.param == "redis":
            path = folder / "redis.sock"
            options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder)]
            start("redis-server", *options)
            until("an answer of Redis", lambda: redis_answers(path))
            settings["ROOMCAST_REDIS_URL"] = f"redis+unix://{path}"
        binary = os.environ["ROOMCAST_BIN"]
        process = start(binary, "--config", str(HERE / "roomcast.toml"), env=settings)
        log = folder / f"{Path(binary).name}.log"

        def address():
            assert process.poll() is None, f"the node ended at its start: {log.read_text()}"
            for line in log.read_text().splitlines():
                said = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
                if said.get("message") == "listening":
                    return said["internal"]
            return None

        url = f"http://{until('the address of the node', address)}"
        until("the node to be ready", lambda: get(f"{url}/readyz")[0] == 200)
        yield Node(url, request.param)
        assert process.poll() is None, f"the node ended: {log.read_text()[-4000:]}"
        faults = [line for line in log.read_text().splitlines() if '"ERROR"' in line or "panicked" in line]
        assert not faults, faults[:5]
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(PATIENCE_S)


def schemathesis(folder: Path, description: str, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run"]
    command += [description, "--no-color", "--header", f"X-API-Key: {KEY}", "--seed", SEED, *options]
    # What it keeps for its next run stays out of the sources.
    env = os.environ | {"PYTHONPATH": str(HERE)}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env, timeout=300)


def assert_keeps_its_promises(folder: Path, node: Node, phases: str, *options: str) -> None:
    options = ("--max-examples", EXAMPLES, "--phases", phases, *options)
    done = schemathesis(folder, f"{node.url}/api/openapi.json", *options)
    print(done.stdout[-20_000:], done.stderr[-2_000:])
    assert done.returncode == 0


def test_errors_have_statuses_where_they_are_asked_for(node, tmp_path):
    # What every field may and may not be is the same whatever the broker is.
    phases = "examples,coverage,fuzzing" if node.kind == "memory" else "examples,fuzzing"
    assert_keeps_its_promises(tmp_path, node, phases, "--header", "X-Centrifugo-Error-Mode: transport")


def test_errors_stand_in_the_body_otherwise(node, tmp_path):
    # There every answer to a request that was understood has status 200.
    beyond = "negative_data_rejection,positive_data_acceptance"
    assert_keeps_its_promises(tmp_path, node, "fuzzing", "--exclude-checks", beyond)


def test_the_description_is_one_of_openapi(node):
    status, text = get(f"{node.url}/api/openapi.json")
    assert status == 200
    document = json.loads(text)
    assert document["openapi"].startswith("3.1.")
    # What a reader of the document is told of every call, every field and every answer.
    for path, item in document["paths"].items():
        call = item["post"]
        assert call["summary"] and call["description"] and call["operationId"] == path.removeprefix("/api/")
        content = call["requestBody"]["content"]["application/json"]
        assert content["schema"] and "example" in content, path
        for status, answer in call["responses"].items():
            assert answer["description"], (path, status)
    for name, schema in document["components"]["schemas"].items():
        for part in [schema, *schema.get("allOf", [])]:
            for field, about in part.get("properties", {}).items():
                described = about.get("description") or "$ref" in about or "oneOf" in about
                assert described, f"{name}.{field} has no description"
    ways = {(way["in"], way["name"]) for way in document["components"]["securitySchemes"].values()}
    assert ways == {("header", "X-API-Key"), ("header", "Authorization"), ("query", "api_key")}


def test_it_can_fail(node, tmp_path):
    """A call that answers otherwise than described is found."""
    document = json.loads(get(f"{node.url}/api/openapi.json")[1])
    document["paths"] = {"/api/info": document["paths"]["/api/info"]}
    document["components"]["schemas"]["NodeInfo"]["properties"]["uptime"] = {"type": "string"}
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(document))
    done = schemathesis(tmp_path, str(path), "--url", node.url, "--max-examples", "1")
    assert done.returncode == 1 and "uptime" in done.stdout, done.stdout
