"""A node is stopped under its clients: they wait for it or go elsewhere, and hear again."""

import unittest

from support import PlainClient, SdkClient, cluster, fresh_room


class Reconnect(unittest.IsolatedAsyncioTestCase):
    async def test_clients_of_a_stopped_node_hear_again(self):
        room = fresh_room()
        speaker = await PlainClient.connected("a")
        await speaker.ask("subscribe", channel=room)
        sdks = []
        for protobuf in (False, True):
            client = await SdkClient.connected(protobuf, "b")
            self.addAsyncCleanup(client.close)
            _, heard = await client.subscribe(room)
            sdks.append((client, heard, len(client.seen.all), len(heard.all)))
        plain = await PlainClient.connected("b")
        await plain.ask("subscribe", channel=room)
        self.addAsyncCleanup(speaker.close)
        self.addAsyncCleanup(plain.close)

        await cluster("stop", "b")
        await plain.socket.wait_closed()
        self.assertEqual(plain.socket.close_code, 3001)
        # A client that knows both addresses goes on at once.
        moved = await PlainClient.connected("a")
        self.addAsyncCleanup(moved.close)
        await moved.ask("subscribe", channel=room)
        await speaker.ask("publish", channel=room, data={"n": 1})
        await moved.hears(room, {"n": 1})

        await cluster("start", "b")
        for client, heard, state_mark, heard_mark in sdks:
            lost = await client.seen.first("the loss", lambda item: item[0] == "connecting", state_mark)
            self.assertEqual(lost, ("connecting", 3001))
            await client.state("connected", state_mark)
            await heard.first("the subscription", lambda item: item[0] == "subscribed", heard_mark)
        await speaker.ask("publish", channel=room, data={"n": 2})
        for _, heard, _, _ in sdks:
            await heard.first("publication 2", lambda item: item == ("publication", {"n": 2}))


if __name__ == "__main__":
    unittest.main()
