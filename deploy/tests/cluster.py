"""Three real nodes, Redis, HAProxy and Prometheus on loopback, run with the files that compose uses. Knows how to start,
stop and ask them; what must be true of them is for the tests to say."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

from repository import DEPLOY, ROOT, program

SECRET = "a-secret-for-the-deployment-tests-0123456789"
API_KEY = "an-api-key-for-the-deployment-tests"
NODES = ("gateway-1", "gateway-2", "gateway-3")


def eventually(condition, what: str, seconds: float = 30.0):
    """What `condition` gives once it is true; an error that names `what` if that takes too long."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            if last := condition():
                return last
        except (OSError, urllib.error.URLError, ValueError) as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"after {seconds} s still not: {what} (last seen: {last})")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on; held together until all are known, so that none comes twice."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def get(url: str) -> tuple[int, str]:
    """Status and body of a GET, whatever the status."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def clean_environment(**variables: str) -> dict[str, str]:
    """The variables of this process without those that the gateway would take for settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROOMCAST_")}
    return kept | variables


def binary() -> str:
    """The gateway under test."""
    path = os.environ.get("ROOMCAST_BIN", "")
    assert path, "ROOMCAST_BIN names no gateway: run `make deploy-live`, or set it to a built binary"
    assert os.access(path, os.X_OK), f"ROOMCAST_BIN={path} is no program: run `make deploy-live`"
    return str(pathlib.Path(path).resolve())


class Cluster:
    """The processes, their addresses, and a folder with what each of them printed."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen] = {}
        ports = iter(free_ports(10))
        self.redis_port = next(ports)
        self.clients = {name: next(ports) for name in NODES}
        self.internal = {name: next(ports) for name in NODES}
        self.balancer, self.balancer_metrics, self.prometheus = next(ports), next(ports), next(ports)

    def start(self) -> None:
        """Starts everything and waits until the balancer has all nodes and Prometheus answers."""
        self.start_redis()
        for name in NODES:
            self.start_node(name)
        # The balancer takes every node for ready until its first check: it may only start after them.
        for name in NODES:
            self.wait_until_ready(name)
        self.run("balancer", [program("haproxy"), "-db", "-f", str(DEPLOY / "haproxy.cfg")], **self._balancer_variables())
        self._write_targets()
        self.run("prometheus", [
            program("prometheus"), f"--config.file={self.folder / 'prometheus' / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}", f"--web.listen-address=127.0.0.1:{self.prometheus}",
        ])
        for name in NODES:
            self.wait_until(name, "UP")
        eventually(lambda: get(f"http://127.0.0.1:{self.prometheus}/-/ready")[0] == 200, "Prometheus is ready")

    def start_redis(self) -> None:
        """Starts Redis with the options of compose."""
        self.run("redis", [program("redis-server"), *self._redis_options(), "--port", str(self.redis_port)])

    def start_node(self, name: str) -> None:
        """Starts one gateway with the settings file of compose; where compose says 0.0.0.0, here it is loopback."""
        self.run(
            name, [binary(), "--config", str(DEPLOY / "roomcast.toml")],
            ROOMCAST_LISTEN=f"127.0.0.1:{self.clients[name]}",
            ROOMCAST_INTERNAL_LISTEN=f"127.0.0.1:{self.internal[name]}",
            ROOMCAST_NODE_NAME=name,
            ROOMCAST_REDIS_URL=f"redis://127.0.0.1:{self.redis_port}",
            ROOMCAST_AUTH_HMAC_SECRET=SECRET,
            ROOMCAST_API_KEY=API_KEY,
        )

    def run(self, name: str, command: list[str], **variables: str) -> None:
        """Starts a process whose output goes to `NAME.log`."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=clean_environment(**variables),
            )

    def stop(self) -> None:
        """Ends whatever still runs."""
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.kill()
            process.wait()

    def signal(self, name: str, what: signal.Signals) -> subprocess.Popen:
        """Sends a signal to one process."""
        self.processes[name].send_signal(what)
        return self.processes[name]

    def state(self, name: str) -> str:
        """How the balancer sees a node: UP, DOWN or MAINT."""
        _, page = get(f"http://127.0.0.1:{self.balancer_metrics}/metrics")
        for line in page.splitlines():
            if line.startswith("haproxy_server_status{") and f'server="{name}"' in line and line.endswith(" 1"):
                return line.split('state="')[1].split('"')[0]
        return "unknown"

    def wait_until_ready(self, name: str) -> None:
        """Returns once the node says that it is ready; at once with an error if it has ended meanwhile."""
        def ready() -> bool:
            self._assert_running(name)
            return self.ready(name)[0] == 200
        eventually(ready, f"{name} is ready")

    def wait_until(self, name: str, state: str, seconds: float = 30.0) -> None:
        """Returns once the balancer sees the node so; at once with an error if a node awaited UP has ended."""
        def reached() -> bool:
            if state == "UP":
                self._assert_running(name)
            return self.state(name) == state
        eventually(reached, f"the balancer sees {name} {state}", seconds)

    def ready(self, name: str) -> tuple[int, str]:
        """What a node says of itself."""
        return get(f"http://127.0.0.1:{self.internal[name]}/readyz")

    def query(self, expression: str) -> list[dict]:
        """The instant value of a PromQL expression, one entry a series."""
        address = f"http://127.0.0.1:{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        status, body = get(address)
        answer = json.loads(body)
        assert status == 200 and answer["status"] == "success", f"{expression}: {body}"
        return answer["data"]["result"]

    def publish(self, name: str, room: str, data: object) -> dict:
        """Publishes through the server API of one node."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.internal[name]}/api/publish",
            data=json.dumps({"channel": room, "data": data}).encode(),
            headers={"Content-Type": "application/json", "X-API-Key": API_KEY},
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    def tail(self, name: str, lines: int = 40) -> str:
        """The last lines that a process printed."""
        log = self.folder / f"{name}.log"
        text = log.read_text(errors="replace") if log.exists() else ""
        return "\n".join(text.splitlines()[-lines:]) or "(nothing)"

    def report(self) -> str:
        """What every process printed last, and how those that ended did."""
        parts = []
        for name, process in self.processes.items():
            code = process.poll()
            state = "running" if code is None else f"ended with {code}"
            parts.append(f"--- {name} ({state})\n{self.tail(name)}")
        return "\n".join(parts)

    def _assert_running(self, name: str) -> None:
        code = self.processes[name].poll()
        assert code is None, f"{name} ended with {code}"

    def _redis_options(self) -> list[str]:
        compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
        return [*compose["services"]["redis"]["command"][1:], "--bind", "127.0.0.1"]

    def _balancer_variables(self) -> dict[str, str]:
        variables = {
            "BALANCER_BIND": f"127.0.0.1:{self.balancer}",
            "BALANCER_METRICS_BIND": f"127.0.0.1:{self.balancer_metrics}",
            "BALANCER_MAXCONN": "2000",
        }
        for number, name in enumerate(NODES, start=1):
            variables[f"GATEWAY_{number}"] = f"127.0.0.1:{self.clients[name]}"
            variables[f"GATEWAY_{number}_INTERNAL_PORT"] = str(self.internal[name])
        return variables

    def _write_targets(self) -> None:
        shutil.copytree(DEPLOY / "prometheus", self.folder / "prometheus")
        for job, ports in (("roomcast", self.internal.values()), ("balancer", [self.balancer_metrics])):
            targets = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
            (self.folder / "prometheus" / "targets" / f"{job}.yml").write_text(yaml.safe_dump(targets))
