"""`cent`, the official library for the server API: every method of it, asked of one node for the clients of the other."""

import asyncio
import base64
import json
import os
import sys
import time
import unittest
import uuid

import cent
from cent import dto

from support import SECRET, PlainClient, example_of, fresh_room, jwt

API = f"http://{os.environ['INTEROP_A_INTERNAL']}/api"
KEY = os.environ["INTEROP_API_KEY"]

# What the library knows beside that: users' status and notifications to phones, which Roomcast does not have.
ABSENT = [
    dto.UpdateUserStatusRequest(users=["ann"]),
    dto.GetUserStatusRequest(users=["ann"]),
    dto.DeleteUserStatusRequest(users=["ann"]),
    dto.DeviceRegisterRequest(provider="fcm", token="t", platform="web"),
    dto.DeviceUpdateRequest(ids=["1"]),
    dto.DeviceRemoveRequest(ids=["1"]),
    dto.DeviceListRequest(),
    dto.DeviceTopicListRequest(),
    dto.DeviceTopicUpdateRequest(device_id="1", op="add", topics=["t"]),
    dto.UserTopicListRequest(),
    dto.UserTopicUpdateRequest(user="ann", op="add", topics=["t"]),
    dto.SendPushNotificationRequest(recipient=dto.PushRecipient(), notification=dto.PushNotification()),
    dto.UpdatePushStatusRequest(analytics_uid="1", status="delivered"),
    dto.CancelPushRequest(uid="1"),
]


def kept_room():
    """A room with a history and with presence, which no other test uses."""
    return f"kept:{fresh_room()}"


def fresh_user():
    return f"user-{uuid.uuid4()}"


class Cases:
    """Held apart from the two kinds of client, so that it is not run by itself."""

    async def call(self, request):
        raise NotImplementedError

    async def client(self, user, **claims):
        """A client on the node that is not asked."""
        client = await PlainClient.opened("b")
        self.addAsyncCleanup(client.close)
        reply = await client.ask("connect", token=signed(user, **claims))
        self.assertIn("connect", reply)
        client.id = reply["connect"]["client"]
        return client

    async def in_room(self, room, user=None):
        client = await self.client(user or fresh_user())
        self.assertIn("subscribe", await client.ask("subscribe", channel=room))
        return client

    async def refused(self, request, code, message):
        with self.assertRaises(cent.CentApiResponseError) as caught:
            await self.call(request)
        self.assertEqual((caught.exception.code, caught.exception.message), (code, message))

    async def test_publish(self):
        room = kept_room()
        listener = await self.in_room(room)
        first = await self.call(cent.PublishRequest(channel=room, data={"n": 1}, tags={"kind": "news"}))
        self.assertIsInstance(first, cent.PublishResult)
        self.assertEqual(first.offset, 1)
        self.assertTrue(first.epoch)
        push = await listener.hears(room, {"n": 1})
        self.assertEqual(push["push"]["pub"]["tags"], {"kind": "news"})

        passing = await self.call(cent.PublishRequest(channel=room, data={"n": 2}, skip_history=True))
        self.assertEqual(passing.offset, 0)
        await listener.hears(room, {"n": 2})

        b64data = base64.b64encode(b'{"n":3}').decode()
        for _ in range(2):
            once = cent.PublishRequest(channel=room, data=None, b64data=b64data, idempotency_key="third")
            self.assertEqual(await self.call(once), cent.PublishResult(offset=2, epoch=first.epoch))
        await listener.hears(room, {"n": 3})
        history = await self.call(cent.HistoryRequest(channel=room, limit=100))
        self.assertEqual([publication.data for publication in history.publications], [{"n": 1}, {"n": 3}])

    async def test_publish_without_history(self):
        result = await self.call(cent.PublishRequest(channel=fresh_room(), data="a text"))
        self.assertEqual(result, cent.PublishResult(offset=0, epoch=""))

    async def test_broadcast(self):
        kept, plain = kept_room(), fresh_room()
        listener = await self.in_room(plain)
        rooms = [kept, "undeclared:room", plain]
        result = await self.call(cent.BroadcastRequest(channels=rooms, data=[1, 2], idempotency_key=str(uuid.uuid4())))
        self.assertIsInstance(result, cent.BroadcastResult)
        first, second, third = result.responses
        self.assertEqual((first.error, first.result.offset), (None, 1))
        self.assertEqual((second.error.code, second.result), (102, None))
        self.assertEqual((third.error, third.result), (None, cent.PublishResult()))
        await listener.hears(plain, [1, 2])

    async def test_subscribe_and_unsubscribe(self):
        room, user = kept_room(), fresh_user()
        client, bystander = await self.client(user), await self.client(user)
        for n in (1, 2):
            last = await self.call(cent.PublishRequest(channel=room, data={"n": n}))
        subscribe = cent.SubscribeRequest(
            user=user,
            client=client.id,
            channel=room,
            info={"seat": 5},
            data={"welcome": True},
            recover_since=cent.StreamPosition(offset=1, epoch=last.epoch),
            override=cent.ChannelOptionsOverride(presence=cent.BoolValue(value=True)),
        )
        self.assertIsInstance(await self.call(subscribe), cent.SubscribeResult)
        entered = await pushed(client, room, "subscribe")
        self.assertEqual(entered["data"], {"welcome": True})
        await client.hears(room, {"n": 2})
        self.assertNotIn(("pub", {"n": 1}), heard(client, room))

        present = await self.call(cent.PresenceRequest(channel=room))
        self.assertEqual(list(present.presence), [client.id])
        self.assertEqual(present.presence[client.id].chan_info, {"seat": 5})

        unsubscribe = cent.UnsubscribeRequest(user=user, channel=room)
        self.assertIsInstance(await self.call(unsubscribe), cent.UnsubscribeResult)
        self.assertEqual((await pushed(client, room, "unsubscribe"))["code"], 2000)
        self.assertEqual([item for item in bystander.seen.all if "push" in item], [])

    async def test_disconnect(self):
        user = fresh_user()
        leaves, stays = await self.client(user), await self.client(user)
        request = cent.DisconnectRequest(
            user=user, whitelist=[stays.id], disconnect=cent.Disconnect(code=4500, reason="banned")
        )
        self.assertIsInstance(await self.call(request), cent.DisconnectResult)
        await ended(leaves)
        self.assertEqual((leaves.socket.close_code, leaves.socket.close_reason), (4500, "banned"))
        self.assertIn("subscribe", await stays.ask("subscribe", channel=fresh_room()))
        await self.call(cent.DisconnectRequest(user=user, client=stays.id))
        await ended(stays)
        self.assertEqual(stays.socket.close_code, 3503)

    async def test_refresh(self):
        user = fresh_user()
        stays, leaves = await self.client(user), await self.client(user)
        request = cent.RefreshRequest(user=user, client=stays.id, expire_at=int(time.time()) + 600)
        self.assertIsInstance(await self.call(request), cent.RefreshResult)
        refreshed = await stays.seen.first("a refresh", lambda item: "refresh" in item.get("push", {}))
        self.assertTrue(refreshed["push"]["refresh"]["expires"])
        self.assertGreater(refreshed["push"]["refresh"]["ttl"], 500)
        await self.call(cent.RefreshRequest(user=user, client=leaves.id, expired=True))
        await ended(leaves)
        self.assertEqual(leaves.socket.close_code, 3005)

    async def test_presence(self):
        room, user = kept_room(), fresh_user()
        first, second = await self.in_room(room, user), await self.in_room(room, user)
        third = await self.in_room(room)
        result = await self.call(cent.PresenceRequest(channel=room))
        self.assertIsInstance(result, cent.PresenceResult)
        self.assertEqual(set(result.presence), {first.id, second.id, third.id})
        self.assertEqual(result.presence[first.id].user, user)
        self.assertEqual(result.presence[first.id].conn_info, {"name": user})
        stats = await self.call(cent.PresenceStatsRequest(channel=room))
        self.assertEqual(stats, cent.PresenceStatsResult(num_clients=3, num_users=2))

    async def test_history(self):
        room = kept_room()
        speaker = await self.in_room(room)
        for n in range(1, 6):
            last = await self.call(cent.PublishRequest(channel=room, data={"n": n}))
        await speaker.ask("publish", channel=room, data={"n": 6})

        async def numbers(**options):
            result = await self.call(cent.HistoryRequest(channel=room, **options))
            self.assertIsInstance(result, cent.HistoryResult)
            self.assertEqual((result.offset, result.epoch), (6, last.epoch))
            return [publication.data["n"] for publication in result.publications]

        self.assertEqual(await numbers(), [])
        self.assertEqual(await numbers(limit=3), [1, 2, 3])
        self.assertEqual(await numbers(limit=2, reverse=True), [6, 5])
        since = cent.StreamPosition(offset=4, epoch=last.epoch)
        self.assertEqual(await numbers(limit=10, since=since), [5, 6])
        self.assertEqual(await numbers(limit=10, since=since, reverse=True), [3, 2, 1])
        newest = (await self.call(cent.HistoryRequest(channel=room, limit=1, reverse=True))).publications[0]
        self.assertEqual((newest.offset, newest.info.client), (6, speaker.id))
        elsewhere = cent.StreamPosition(offset=4, epoch="other")
        await self.refused(cent.HistoryRequest(channel=room, limit=1, since=elsewhere), 112, "unrecoverable position")

        self.assertIsInstance(await self.call(cent.HistoryRemoveRequest(channel=room)), cent.HistoryRemoveResult)
        self.assertEqual(await numbers(limit=-1), [])

    async def test_channels(self):
        room = fresh_room()
        await self.in_room(room)
        await self.in_room(room)
        result = await self.call(cent.ChannelsRequest(pattern=f"{room[:-1]}?"))
        self.assertIsInstance(result, cent.ChannelsResult)
        self.assertEqual({name: info.num_clients for name, info in result.channels.items()}, {room: 2})
        everywhere = await self.call(cent.ChannelsRequest())
        self.assertEqual(everywhere.channels[room].num_clients, 2)

    async def test_info(self):
        names = set()
        # A node is known to the other with its first beat.
        async with asyncio.timeout(20):
            while names != {"node-a", "node-b"}:
                result = await self.call(cent.InfoRequest())
                self.assertIsInstance(result, cent.InfoResult)
                names = {node.name for node in result.nodes}
        for node in result.nodes:
            self.assertTrue(node.uid and node.version)
            self.assertGreaterEqual(node.uptime, 0)

    async def test_connections(self):
        room, user = kept_room(), fresh_user()
        client = await self.in_room(room, user)
        result = await self.call(cent.ConnectionsRequest(user=user, expression=""))
        self.assertIsInstance(result, cent.ConnectionsResult)
        self.assertEqual(list(result.connections), [client.id])
        connection = result.connections[client.id]
        self.assertEqual((connection.user, connection.transport, connection.protocol), (user, "websocket", "json"))
        self.assertEqual(list(connection.state.channels), [room])

    async def test_block_and_unblock_user(self):
        user = fresh_user()
        client = await self.client(user)
        until = int(time.time()) + 600
        self.assertIsInstance(await self.call(cent.BlockUserRequest(user=user, expire_at=until)), cent.BlockUserResult)
        await ended(client)
        self.assertEqual(client.socket.close_code, 3503)
        self.assertEqual(await code_of_refusal(user), 3503)
        self.assertIsInstance(await self.call(cent.UnblockUserRequest(user=user)), cent.UnblockUserResult)
        await let_in(self, user)

    async def test_revoke_token(self):
        user, mark = fresh_user(), str(uuid.uuid4())
        revoked, other = await self.client(user, jti=mark), await self.client(user)
        request = cent.RevokeTokenRequest(uid=mark, expire_at=int(time.time()) + 600)
        self.assertIsInstance(await self.call(request), cent.RevokeTokenResult)
        await ended(revoked)
        self.assertEqual(revoked.socket.close_code, 3500)
        self.assertIn("subscribe", await other.ask("subscribe", channel=fresh_room()))

    async def test_invalidate_user_tokens(self):
        user, now = fresh_user(), int(time.time())
        old, new = await self.client(user, iat=now - 60), await self.client(user, iat=now)
        request = cent.InvalidateUserTokensRequest(user=user, issued_before=now - 30, expire_at=now + 600)
        self.assertIsInstance(await self.call(request), cent.InvalidateUserTokensResult)
        await ended(old)
        self.assertEqual(old.socket.close_code, 3500)
        self.assertIn("subscribe", await new.ask("subscribe", channel=fresh_room()))

    async def test_batch(self):
        room, user = kept_room(), fresh_user()
        client = await self.in_room(room, user)
        for parallel in (False, True):
            requests = [
                cent.PublishRequest(channel=room, data={"parallel": parallel}),
                cent.BroadcastRequest(channels=[room, "undeclared:room"], data=1),
                cent.PresenceStatsRequest(channel=room),
                cent.HistoryRequest(channel=room, limit=1),
                cent.ConnectionsRequest(user=user, expression=""),
                cent.InfoRequest(),
            ]
            result = await self.call(cent.BatchRequest(requests=requests, parallel=parallel))
            published, broadcast, stats, history, connections, info = result.replies
            self.assertIsInstance(published, cent.PublishResult)
            self.assertGreater(published.offset, 0)
            self.assertEqual([reply.error and reply.error.code for reply in broadcast.responses], [None, 102])
            self.assertEqual(stats, cent.PresenceStatsResult(num_clients=1, num_users=1))
            self.assertEqual([publication.offset for publication in history.publications], [1])
            self.assertEqual(list(connections.connections), [client.id])
            self.assertIn("node-a", [node.name for node in info.nodes])
            await client.hears(room, {"parallel": parallel})

    async def test_errors(self):
        await self.refused(cent.PublishRequest(channel="undeclared:room", data=1), 102, "unknown channel")
        await self.refused(cent.PublishRequest(channel="", data=1), 107, "bad request")
        await self.refused(cent.PublishRequest(channel="a", data=None, b64data="*"), 107, "bad request")
        await self.refused(cent.PresenceRequest(channel=fresh_room()), 108, "not available")
        await self.refused(cent.PresenceStatsRequest(channel=fresh_room()), 108, "not available")
        await self.refused(cent.HistoryRequest(channel=fresh_room(), limit=1), 108, "not available")
        await self.refused(cent.HistoryRemoveRequest(channel=fresh_room()), 108, "not available")
        await self.refused(cent.SubscribeRequest(user="ann", channel="undeclared:room"), 102, "unknown channel")

    async def test_wrong_key(self):
        with self.assertRaises(cent.CentUnauthorizedError):
            await self.call(cent.InfoRequest(), key="another key")

    async def test_methods_that_are_not_there(self):
        for request in ABSENT:
            with self.subTest(request.api_method), self.assertRaises(cent.CentTransportError) as caught:
                await self.call(request)
            self.assertEqual(caught.exception.status_code, 404)


class Sync(Cases, unittest.IsolatedAsyncioTestCase):
    async def call(self, request, key=KEY):
        def asked():
            with cent.Client(API, key) as client:
                return getattr(client, request.api_method)(request)

        return await asyncio.to_thread(asked)


class Async(Cases, unittest.IsolatedAsyncioTestCase):
    async def call(self, request, key=KEY):
        async with cent.AsyncClient(API, key) as client:
            return await getattr(client, request.api_method)(request)


class Example(unittest.IsolatedAsyncioTestCase):
    async def test_cent_as_in_the_documentation(self):
        listener = await PlainClient.connected("b")
        self.addAsyncCleanup(listener.close)
        await listener.ask("subscribe", channel="lobby")
        code = example_of("cent").replace("http://127.0.0.1:9000/api", API)
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, env={**os.environ, "KEY": KEY}, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await child.communicate()
        self.assertEqual(child.returncode, 0)
        await listener.hears("lobby", {"text": "hello from cent"})
        self.assertIn("node-a", printed.decode())


class Library(unittest.TestCase):
    def test_every_method_of_the_library_is_asked(self):
        """A later version with more methods is to be noticed."""
        tested = {request.api_method for request in ABSENT} | {
            "batch", "block_user", "broadcast", "channels", "connections", "disconnect", "history", "history_remove",
            "info", "invalidate_user_tokens", "presence", "presence_stats", "publish", "refresh", "revoke_token",
            "subscribe", "unblock_user", "unsubscribe",
        }  # fmt: skip
        offered = {name for name in dir(cent.Client) if not name.startswith("_")} - {"close"}
        self.assertEqual(offered, tested)


def signed(user, **claims):
    now = int(time.time())
    return jwt.encode({"sub": user, "exp": now + 3600, "info": {"name": user}, **claims}, SECRET, algorithm="HS256")


def heard(client, room):
    """What the client was told of the room: pairs of kind and data."""
    pushes = [item["push"] for item in client.seen.all if item.get("push", {}).get("channel") == room]
    return [("pub", push["pub"]["data"]) if "pub" in push else (next(iter(push)), None) for push in pushes]


async def pushed(client, room, kind):
    """Waits for a push of this kind."""
    push = await client.seen.first(
        f"{kind} in {room}", lambda item: item.get("push", {}).get("channel") == room and kind in item["push"]
    )
    return push["push"][kind]


async def ended(client):
    async with asyncio.timeout(20):
        await client.socket.wait_closed()


async def code_of_refusal(user):
    """Connects where it must not: the code of the close."""
    client = await PlainClient.opened("b")
    await client.socket.send(json.dumps({"id": 1, "connect": {"token": signed(user)}}))
    await ended(client)
    return client.socket.close_code


async def let_in(test, user):
    """Connects until it is let in: the other node is told a moment after the answer."""
    async with asyncio.timeout(20):
        while True:
            client = await PlainClient.opened("b")
            test.addAsyncCleanup(client.close)
            await client.socket.send(json.dumps({"id": 1, "connect": {"token": signed(user)}}))
            first = await client.seen.first("an answer", lambda item: "connect" in item or "closed" in item)
            if "connect" in first:
                return


if __name__ == "__main__":
    unittest.main()
