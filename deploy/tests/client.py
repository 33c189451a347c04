"""A client of the JSON protocol, no more than the tests need. Knows nothing of balancers and nodes."""

import contextlib
import json
import time

import jwt
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from cluster import SECRET


def token(user: str, seconds: int = 600) -> str:
    """A connection token as a backend would sign it."""
    return jwt.encode({"sub": user, "exp": int(time.time()) + seconds}, SECRET, algorithm="HS256")


class Client:
    """One open connection. Replies are matched by id, publications are kept in the order they came."""

    def __init__(self, port: int, user: str, origin: str | None = None) -> None:
        self._open = contextlib.ExitStack()
        self.socket = self._open.enter_context(
            connect(f"ws://127.0.0.1:{port}/connection/websocket", origin=origin, open_timeout=10)
        )
        self.publications: list[tuple[str, object]] = []
        self._last_id = 0
        self._replies: dict[int, dict] = {}
        try:
            self.node = self.call("connect", token=token(user))["connect"]["node"]
        except BaseException:
            self.close()
            raise

    def call(self, method: str, **params: object) -> dict:
        """Sends one command and waits for its reply."""
        self._last_id += 1
        self.socket.send(json.dumps({"id": self._last_id, method: params}))
        deadline = time.monotonic() + 10
        while self._last_id not in self._replies:
            self._read(deadline)
        return self._replies.pop(self._last_id)

    def subscribe(self, room: str) -> "Client":
        """Enters a room, and returns itself so that it reads as one line."""
        reply = self.call("subscribe", channel=room)
        assert "subscribe" in reply, f"subscribing to {room}: {reply}"
        return self

    def hears(self, room: str, data: object, seconds: float = 10.0) -> None:
        """Waits until that publication has come."""
        deadline = time.monotonic() + seconds
        while (room, data) not in self.publications:
            self._read(deadline)

    def wait_for_close(self, seconds: float) -> tuple[int, str]:
        """Reads until the other side closes, and gives code and reason."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._read(deadline)
        return self.socket.close_code, self.socket.close_reason

    def close(self) -> None:
        """Leaves."""
        self._open.close()

    def _read(self, deadline: float) -> None:
        frame = self.socket.recv(timeout=max(0.0, deadline - time.monotonic()))
        for line in filter(None, str(frame).split("\n")):
            message = json.loads(line)
            if message == {}:
                self.socket.send("{}")
            elif "id" in message:
                self._replies[message["id"]] = message
            elif "pub" in message.get("push", {}):
                push = message["push"]
                self.publications.append((push["channel"], push["pub"]["data"]))
