// The official SDK for JavaScript where WebSockets do not get through.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { freshRoom, NODES, PlainClient, SdkClient, token } from "./support.mjs";
import { roundRobin, StreamClient, STREAMS } from "./streams.mjs";

const publications = (heard) => heard.all.filter((item) => item.data);

describe("centrifuge for JavaScript over plain HTTP", { concurrency: true }, () => {
  for (const way of STREAMS) {
    describe(`${way.transport}, ${way.encoding}`, { concurrency: true }, () => {
      test("what is published on one node is heard on the other", async (t) => {
        const room = freshRoom();
        const speaker = await StreamClient.connected(way, "a", "alice");
        const listener = await StreamClient.connected(way, "b", "bob");
        const socket = await SdkClient.connected("json", "b", "carol");
        t.after(() => { speaker.close(); listener.close(); socket.close(); });
        const heards = [];
        for (const client of [speaker, listener, socket]) heards.push((await client.subscribe(room)).heard);
        for (const n of [1, 2, 3]) await speaker.publish(room, { n, text: "ça marche ✓" });
        for (const heard of heards) {
          await heard.first("the third publication", (item) => item.data?.n === 3);
          assert.deepEqual(publications(heard), [1, 2, 3].map((n) => ({ data: { n, text: "ça marche ✓" }, user: "alice" })));
        }
        // The answer on the stream may be before the one to the request.
        const { status } = await speaker.seen.first("the answer to a request", (item) => item.sent === "command");
        assert.equal(status, 204);
      });

      test("a large publication comes whole", async (t) => {
        const room = freshRoom();
        const client = await StreamClient.connected(way, "a");
        t.after(() => client.close());
        const { heard } = await client.subscribe(room);
        const text = "✓ab\n".repeat(8_000);
        await client.publish(room, { text });
        const { data } = await heard.first("the publication", (item) => item.data);
        assert.equal(data.text, text);
      });

      test("after unsubscribing there is silence", async (t) => {
        const room = freshRoom();
        const speaker = await StreamClient.connected(way, "a");
        const leaver = await StreamClient.connected(way, "b");
        const stayer = await StreamClient.connected(way, "b");
        t.after(() => { speaker.close(); leaver.close(); stayer.close(); });
        await speaker.subscribe(room);
        const left = await leaver.subscribe(room);
        const stayed = await stayer.subscribe(room);
        await speaker.publish(room, { n: 1 });
        await left.heard.first("the first publication", (item) => item.data?.n === 1);
        assert.equal(await leaver.sending(() => left.subscription.unsubscribe()), 204);
        await assert.rejects(leaver.publish(room, { n: 0 }), { code: 103 });
        await speaker.publish(room, { n: 2 });
        await stayed.heard.first("the second publication", (item) => item.data?.n === 2);
        // A reply behind the delivery: what was to come on this stream has come.
        await assert.rejects(leaver.publish(room, { n: 0 }), { code: 103 });
        assert.deepEqual(publications(left.heard).map((item) => item.data.n), [1]);
      });

      test("server pings are answered and the stream stays", async (t) => {
        const client = await StreamClient.connected(way, "a");
        t.after(() => client.close());
        let from = 0;
        for (let pongs = 0; pongs < 3; pongs += 1) {
          const { status } = await client.seen.first("a pong", (item) => item.sent === "pong", from);
          assert.equal(status, 204);
          from = client.seen.all.findIndex((item, at) => at >= from && item.sent === "pong") + 1;
        }
        const states = client.seen.all.filter((item) => item.state).map((item) => item.state);
        assert.deepEqual(states, ["connecting", "connected"]);
      });

      test("a client that answers no ping is told 3012 and comes back", async (t) => {
        const client = await StreamClient.connected(way, "a", "alice", { answersPings: false });
        t.after(() => client.close());
        const from = client.seen.all.length;
        const { code, reason } = await client.state("connecting", from);
        assert.deepEqual({ code, reason }, { code: 3012, reason: "no pong" });
        await client.state("connected", from);
      });

      test("a token with a wrong signature ends the client with 3500", async (t) => {
        const client = new StreamClient(way, "a", { token: await token("mallory", { secret: "another-secret-of-more-than-32-bytes" }) });
        t.after(() => client.close());
        client.sdk.connect();
        assert.equal((await client.state("disconnected")).code, 3500);
        assert.equal(client.sdk.state, "disconnected");
      });

      test("an expired token asks for a new one and connects", async (t) => {
        let asked = 0;
        const client = new StreamClient(way, "a", {
          token: await token("alice", { expires: -60 }),
          getToken: () => { asked += 1; return token("alice"); },
        });
        t.after(() => client.close());
        await client.connect();
        assert.equal(asked, 1);
        assert.ok(client.seen.all.some((item) => item.error === 109), "error 109 is reported");
      });

      test("a room that may not be entered is refused with 103", async (t) => {
        const client = await StreamClient.connected(way, "a");
        t.after(() => client.close());
        const subscription = client.sdk.newSubscription("closed:room");
        const ended = new Promise((resolve) => subscription.on("unsubscribed", resolve));
        subscription.subscribe();
        const { code, reason } = await ended;
        assert.deepEqual({ code, reason }, { code: 103, reason: "permission denied" });
      });

      test("a node takes commands and pongs for a session of another", async (t) => {
        const room = freshRoom();
        const client = await StreamClient.connected(way, "a", "alice", { up: NODES.b });
        t.after(() => client.close());
        const { subscription, heard } = await client.subscribe(room);
        await client.publish(room, { n: 1 });
        await heard.first("the publication", (item) => item.data?.n === 1);
        assert.equal(await client.sending(() => subscription.unsubscribe()), 204);
        await assert.rejects(client.publish(room, { n: 0 }), { code: 103 });
        const { status } = await client.seen.first("a pong", (item) => item.sent === "pong");
        assert.equal(status, 204);
        assert.equal(client.sdk.state, "connected");
      });

      test("a balancer needs no sticky sessions", async (t) => {
        const room = freshRoom();
        const { address, requests } = await roundRobin(t);
        const client = await StreamClient.connected(way, "a", "alice", { down: address, up: address });
        t.after(() => client.close());
        const { heard } = await client.subscribe(room);
        for (const n of [1, 2, 3, 4]) await client.publish(room, { n });
        await heard.first("the fourth publication", (item) => item.data?.n === 4);
        assert.deepEqual(publications(heard).map((item) => item.data.n), [1, 2, 3, 4]);
        const nodes = new Set(requests.filter(({ path }) => path === "/emulation").map(({ node }) => node));
        assert.deepEqual([...nodes].sort(), ["a", "b"]);
      });

      test("the SDK falls back to it where there is no WebSocket", async (t) => {
        const room = freshRoom();
        const client = await StreamClient.connected(way, "a", "alice", {
          endpoint: [
            { transport: "websocket", endpoint: `ws://${NODES.a}/no-such-address` },
            { transport: way.transport, endpoint: `http://${NODES.a}/connection/${way.transport}` },
          ],
        });
        const listener = await PlainClient.connected("b");
        t.after(() => { client.close(); listener.close(); });
        await listener.ask("subscribe", { channel: room });
        await client.subscribe(room);
        await client.publish(room, { n: 1 });
        await listener.hears(room, (data) => data.n === 1);
        await client.seen.first("a command beside the stream", (item) => item.sent === "command" && item.status === 204);
      });
    });
  }
});
