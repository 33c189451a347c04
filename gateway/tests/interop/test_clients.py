"""The official SDK for Python in both encodings, and `websockets`, on two nodes that share one Redis."""

import asyncio
import re
import unittest
from pathlib import Path

import centrifuge

from support import ANOTHER_SECRET, PlainClient, SdkClient, fresh_room, token


async def three_pings(node):
    """Returns after a connection made now was pinged three times: longer than any other's pong may take."""
    clock = await PlainClient.connected(node, "/connection/websocket")
    start = 0
    for _ in range(3):
        await clock.seen.first("a ping", lambda item: "ping" in item, start)
        start = next(i for i, item in enumerate(clock.seen.all) if i >= start and "ping" in item) + 1
    await clock.close()


class Cases:
    """Held apart from the two encodings, so that it is not run by itself."""

    protobuf = False

    async def client(self, node, user="alice", **options):
        if options:
            client = SdkClient(self.protobuf, node, **options)
        else:
            client = await SdkClient.connected(self.protobuf, node, user)
        self.addAsyncCleanup(client.close)
        return client

    async def refused(self, awaitable, code):
        with self.assertRaises(centrifuge.ReplyError) as caught:
            await awaitable
        self.assertEqual(caught.exception.code, code)

    async def test_heard_on_the_other_node(self):
        room = fresh_room()
        speaker, listener = await self.client("a"), await self.client("b", "bob")
        _, mine = await speaker.subscribe(room)
        _, theirs = await listener.subscribe(room)
        for n in (1, 2, 3):
            await speaker.publish(room, {"n": n, "text": "ça marche ✓"})
        for heard in (mine, theirs):
            await heard.first("publication 3", lambda item: item[0] == "publication" and item[1]["n"] == 3)
            numbers = [item[1]["n"] for item in heard.all if item[0] == "publication"]
            self.assertEqual(numbers, [1, 2, 3])

    async def test_silence_after_unsubscribe(self):
        room = fresh_room()
        speaker, leaver, stayer = await self.client("a"), await self.client("b"), await self.client("b")
        await speaker.subscribe(room)
        subscription, left = await leaver.subscribe(room)
        _, stayed = await stayer.subscribe(room)
        await speaker.publish(room, {"n": 1})
        await left.first("publication 1", lambda item: item == ("publication", {"n": 1}))
        await subscription.unsubscribe()
        # The refusal is the node's answer to a command sent after the unsubscribe.
        await self.refused(leaver.publish(room, {"n": 0}), 103)
        await speaker.publish(room, {"n": 2})
        await stayed.first("publication 2", lambda item: item == ("publication", {"n": 2}))
        # A reply behind the delivery: what was to come on this connection has come.
        await self.refused(leaver.publish(room, {"n": 0}), 103)
        self.assertEqual([item[1] for item in left.all if item[0] == "publication"], [{"n": 1}])

    async def test_pings_are_answered(self):
        client = await self.client("a")
        await three_pings("a")
        self.assertEqual([item[0] for item in client.seen.all], ["connecting", "connected"])
        await client.subscribe(fresh_room())

    async def test_refused_token_is_final(self):
        client = await self.client("a", token=token("mallory", secret=ANOTHER_SECRET))
        await client.sdk.connect()
        self.assertEqual(await client.state("disconnected"), ("disconnected", 3500))
        self.assertEqual(client.sdk.state, centrifuge.ClientState.DISCONNECTED)

    async def test_expired_token_asks_for_another(self):
        asked = []

        async def get_token():
            asked.append(True)
            return token("alice")

        client = await self.client("a", token=token("alice", expires=-60), get_token=get_token)
        await client.connect()
        self.assertEqual(len(asked), 1)
        self.assertNotIn("disconnected", [item[0] for item in client.seen.all])

    async def test_closed_room_is_refused(self):
        client = await self.client("a")
        heard_end = asyncio.get_running_loop().create_future()

        class Events(centrifuge.SubscriptionEventHandler):
            async def on_unsubscribed(self, ctx):
                heard_end.set_result((ctx.code, ctx.reason))

        subscription = client.sdk.new_subscription("closed:room", Events())
        await subscription.subscribe()
        async with asyncio.timeout(10):
            self.assertEqual(await heard_end, (103, "permission denied"))


class SdkJson(Cases, unittest.IsolatedAsyncioTestCase):
    protobuf = False


class SdkProtobuf(Cases, unittest.IsolatedAsyncioTestCase):
    protobuf = True


class Websockets(unittest.IsolatedAsyncioTestCase):
    async def client(self, node, user="alice"):
        client = await PlainClient.connected(node, user=user)
        self.addAsyncCleanup(client.close)
        return client

    async def test_heard_on_the_other_node_until_unsubscribed(self):
        room = fresh_room()
        speaker, leaver, stayer = await self.client("a"), await self.client("b"), await self.client("b")
        for client in (speaker, leaver, stayer):
            self.assertIn("subscribe", await client.ask("subscribe", channel=room))
        self.assertEqual((await speaker.ask("publish", channel=room, data={"n": 1}))["publish"], {})
        push = await leaver.hears(room, {"n": 1})
        self.assertEqual(push["push"]["pub"]["info"]["user"], "alice")
        self.assertEqual((await leaver.ask("unsubscribe", channel=room))["unsubscribe"], {})
        await speaker.ask("publish", channel=room, data={"n": 2})
        await stayer.hears(room, {"n": 2})
        reply = await leaver.ask("publish", channel=room, data={"n": 0})
        self.assertEqual(reply["error"]["code"], 103)
        self.assertEqual(len([item for item in leaver.seen.all if "push" in item]), 1)

    async def test_native_pings_keep_it_open_both_ways(self):
        client = await self.client("a")
        await three_pings("a")
        # The client's own ping; awaiting it means that the node's pong came.
        async with asyncio.timeout(10):
            await (await client.socket.ping())
        self.assertNotIn({"ping": True}, client.seen.all)
        self.assertIn("subscribe", await client.ask("subscribe", channel=fresh_room()))

    async def test_tokens_and_permissions(self):
        refused = await PlainClient.opened("a")
        self.addAsyncCleanup(refused.close)
        await refused.socket.send('{"id":1,"connect":{"token":"%s"}}' % token("mallory", secret=ANOTHER_SECRET))
        async with asyncio.timeout(10):
            await refused.socket.wait_closed()
        self.assertEqual(refused.socket.close_code, 3500)
        self.assertTrue(refused.socket.close_reason)
        late = await PlainClient.opened("a")
        self.addAsyncCleanup(late.close)
        reply = await late.ask("connect", token=token("alice", expires=-60))
        self.assertEqual(reply["error"]["code"], 109)
        client = await self.client("a")
        reply = await client.ask("subscribe", channel="closed:room")
        self.assertEqual(reply["error"], {"code": 103, "message": "permission denied"})


class Versions(unittest.TestCase):
    def test_those_of_the_page_are_those_that_run(self):
        here = Path(__file__).parent
        run = {}
        for manifest, spelling in {
            "package.json": r'"(\S+)": "(\d\S+)"',
            "requirements.txt": r"^(\S+)==(\S+)$",
            "go/go.mod": r"^(?:require )?\s*github\.com/centrifugal/(\S+) v(\S+)$",
            "java/pom.xml": r"<artifactId>(\S+)</artifactId>\s*<version>(\S+)</version>",
        }.items():
            run.update(re.findall(spelling, (here / manifest).read_text(), re.MULTILINE))
        page = (here.parents[2] / "docs/CLIENTS.md").read_text()
        named = dict(re.findall(r"^\| `(\S+)`[^|]* \| (\d\S*) \|", page, re.MULTILINE))
        self.assertEqual(len(named), 8)
        self.assertEqual(named, {name: run.get(name) for name in named})


if __name__ == "__main__":
    unittest.main()
