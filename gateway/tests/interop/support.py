"""What every suite in Python needs: tokens, waiting, and the clients under test."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import time
import uuid
from pathlib import Path

import centrifuge
import jwt
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

NODES = {"a": os.environ["INTEROP_A"], "b": os.environ["INTEROP_B"]}
SECRET = os.environ["INTEROP_SECRET"]
ANOTHER_SECRET = "another-secret-of-more-than-32-bytes"
DEADLINE_S = 10


def token(user, expires=3600, secret=SECRET):
    """Signs a token; `expires` is in seconds from now."""
    return jwt.encode({"sub": user, "exp": int(time.time()) + expires}, secret, algorithm="HS256")


def fresh_room():
    """A room that no other test uses."""
    return f"interop-{uuid.uuid4()}"


def example_of(name):
    """An example of docs/CLIENTS.md: a marker, then the block of code after it."""
    page = Path(__file__).parents[3] / "docs/CLIENTS.md"
    return re.search(rf"<!-- example: {name} -->\s*```\w*\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)[1]


async def cluster(*words):
    """Runs cluster.sh without holding up the clients of this process."""
    script = Path(__file__).with_name("cluster.sh")
    await asyncio.to_thread(subprocess.run, [script, *words], check=True)


class Happenings:
    """Things that happened, in order, and a way to await one of them, past or to come."""

    def __init__(self):
        self.all = []
        self._changed = asyncio.Condition()

    async def add(self, item):
        async with self._changed:
            self.all.append(item)
            self._changed.notify_all()

    async def first(self, what, matches, start=0):
        def found():
            return next((item for item in self.all[start:] if matches(item)), None)

        try:
            async with asyncio.timeout(DEADLINE_S), self._changed:
                await self._changed.wait_for(lambda: found() is not None)
                return found()
        except TimeoutError:
            raise AssertionError(f"waited for {what}; seen: {self.all}") from None


class _ClientEvents(centrifuge.ClientEventHandler):
    def __init__(self, seen):
        self._seen = seen

    async def on_connected(self, ctx):
        await self._seen.add(("connected", ctx.client))

    async def on_connecting(self, ctx):
        await self._seen.add(("connecting", ctx.code))

    async def on_disconnected(self, ctx):
        await self._seen.add(("disconnected", ctx.code))

    async def on_error(self, ctx):
        await self._seen.add(("error", getattr(ctx.error, "code", None)))


class _RoomEvents(centrifuge.SubscriptionEventHandler):
    def __init__(self, heard, decoded):
        self._heard = heard
        self._decoded = decoded

    async def on_publication(self, ctx):
        await self._heard.add(("publication", self._decoded(ctx.pub.data)))

    async def on_subscribed(self, ctx):
        await self._heard.add(("subscribed", None))

    async def on_unsubscribed(self, ctx):
        await self._heard.add(("unsubscribed", (ctx.code, ctx.reason)))


class SdkClient:
    """One client of the official SDK. What it meets is kept in `seen`."""

    def __init__(self, protobuf, node, **options):
        self.protobuf = protobuf
        self.seen = Happenings()
        self.sdk = centrifuge.Client(
            f"ws://{NODES[node]}/connection/websocket",
            events=_ClientEvents(self.seen),
            use_protobuf=protobuf,
            max_reconnect_delay=0.3,
            **options,
        )

    @classmethod
    async def connected(cls, protobuf, node, user="alice"):
        client = cls(protobuf, node, token=token(user))
        await client.connect()
        return client

    async def connect(self):
        await self.sdk.connect()
        await self.state("connected")

    async def state(self, state, start=0):
        return await self.seen.first(state, lambda item: item[0] == state, start)

    async def subscribe(self, room):
        """Returns once the server took the subscription: the subscription and what it hears."""
        heard = Happenings()
        subscription = self.sdk.new_subscription(room, _RoomEvents(heard, self._decoded))
        await subscription.subscribe()
        await heard.first("the subscription", lambda item: item[0] == "subscribed")
        return subscription, heard

    async def publish(self, room, data):
        await self.sdk.publish(room, json.dumps(data).encode() if self.protobuf else data)

    def _decoded(self, data):
        return json.loads(data) if self.protobuf else data

    async def close(self):
        await self.sdk.disconnect()


class PlainClient:
    """A plain `websockets` client that speaks the protocol in JSON without an SDK."""

    def __init__(self, socket):
        self.socket = socket
        self.seen = Happenings()
        self._last_id = 0
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def opened(cls, node, path="/ws"):
        return cls(await connect(f"ws://{NODES[node]}{path}"))

    @classmethod
    async def connected(cls, node, path="/ws", user="alice"):
        client = await cls.opened(node, path)
        reply = await client.ask("connect", token=token(user))
        assert "connect" in reply, reply
        return client

    async def ask(self, method, **request):
        self._last_id += 1
        number = self._last_id
        await self.socket.send(json.dumps({"id": number, method: request}))
        return await self.seen.first(f"reply to {method}", lambda item: item.get("id") == number)

    async def hears(self, room, data):
        def matches(item):
            push = item.get("push", {})
            return push.get("channel") == room and push.get("pub", {}).get("data") == data

        return await self.seen.first(f"{data} in {room}", matches)

    async def _read(self):
        with contextlib.suppress(ConnectionClosed):
            async for text in self.socket:
                message = json.loads(text)
                if message == {}:
                    await self.socket.send("{}")
                await self.seen.add(message or {"ping": True})
        await self.seen.add({"closed": self.socket.close_code})

    async def close(self):
        await self.socket.close()
        self._reading.cancel()
