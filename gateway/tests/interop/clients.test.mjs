// The official SDK for JavaScript in both encodings, and Node's `ws`, on two nodes that share one Redis.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { freshRoom, PlainClient, SdkClient, token } from "./support.mjs";

// Most of the time goes by waiting for pings, so all suites run side by side.
describe("clients in JavaScript", { concurrency: true }, () => {
  for (const encoding of ["json", "protobuf"]) {
    describe(`centrifuge for JavaScript, ${encoding}`, { concurrency: true }, () => {
      test("what is published on one node is heard on the other", async (t) => {
        const room = freshRoom();
        const speaker = await SdkClient.connected(encoding, "a", "alice");
        const listener = await SdkClient.connected(encoding, "b", "bob");
        t.after(() => { speaker.close(); listener.close(); });
        const mine = await speaker.subscribe(room);
        const theirs = await listener.subscribe(room);
        for (const n of [1, 2, 3]) await speaker.publish(room, { n });
        for (const { heard } of [mine, theirs]) {
          await heard.first("the third publication", (item) => item.data?.n === 3);
          const publications = heard.all.filter((item) => item.data);
          assert.deepEqual(publications, [1, 2, 3].map((n) => ({ data: { n }, user: "alice" })));
        }
      });

      test("the other encoding hears the same", async (t) => {
        const room = freshRoom();
        const speaker = await SdkClient.connected(encoding, "a");
        const listener = await SdkClient.connected(encoding === "json" ? "protobuf" : "json", "b");
        t.after(() => { speaker.close(); listener.close(); });
        await speaker.subscribe(room);
        const { heard } = await listener.subscribe(room);
        await speaker.publish(room, { text: "ça marche ✓", list: [1, null, "x"] });
        const publication = await heard.first("the publication", (item) => item.data);
        assert.deepEqual(publication.data, { text: "ça marche ✓", list: [1, null, "x"] });
      });

      test("after unsubscribing there is silence", async (t) => {
        const room = freshRoom();
        const speaker = await SdkClient.connected(encoding, "a");
        const leaver = await SdkClient.connected(encoding, "b");
        const stayer = await SdkClient.connected(encoding, "b");
        t.after(() => { speaker.close(); leaver.close(); stayer.close(); });
        await speaker.subscribe(room);
        const left = await leaver.subscribe(room);
        const stayed = await stayer.subscribe(room);
        await speaker.publish(room, { n: 1 });
        await left.heard.first("the first publication", (item) => item.data?.n === 1);
        left.subscription.unsubscribe();
        // The refusal is the node's answer to a command sent after the unsubscribe.
        await assert.rejects(leaver.publish(room, { n: 0 }), { code: 103 });
        await speaker.publish(room, { n: 2 });
        await stayed.heard.first("the second publication", (item) => item.data?.n === 2);
        // A reply behind the delivery: what was to come on this connection has come.
        await assert.rejects(leaver.publish(room, { n: 0 }), { code: 103 });
        assert.deepEqual(left.heard.all.filter((item) => item.data).map((item) => item.data.n), [1]);
      });

      test("server pings are answered and the connection stays", async (t) => {
        const client = await SdkClient.connected(encoding, "a");
        t.after(() => client.close());
        let from = 0;
        for (let pings = 0; pings < 3; pings += 1) {
          await client.seen.first("a ping", (item) => item.ping, from);
          from = client.seen.all.findIndex((item, at) => at >= from && item.ping) + 1;
        }
        const states = client.seen.all.filter((item) => item.state).map((item) => item.state);
        assert.deepEqual(states, ["connecting", "connected"]);
      });

      test("a token with a wrong signature ends the client with 3500", async (t) => {
        const client = new SdkClient(encoding, "a", { token: await token("mallory", { secret: "another-secret-of-more-than-32-bytes" }) });
        t.after(() => client.close());
        client.sdk.connect();
        const end = await client.state("disconnected");
        assert.equal(end.code, 3500);
        assert.equal(client.sdk.state, "disconnected");
      });

      test("an expired token asks for a new one and connects", async (t) => {
        let asked = 0;
        const client = new SdkClient(encoding, "a", {
          token: await token("alice", { expires: -60 }),
          getToken: () => { asked += 1; return token("alice"); },
        });
        t.after(() => client.close());
        await client.connect();
        assert.equal(asked, 1);
        assert.ok(client.seen.all.some((item) => item.error === 109), "error 109 is reported");
      });

      test("a room that may not be entered is refused with 103", async (t) => {
        const client = await SdkClient.connected(encoding, "a");
        t.after(() => client.close());
        const subscription = client.sdk.newSubscription("closed:room");
        const ended = new Promise((resolve) => subscription.on("unsubscribed", resolve));
        subscription.subscribe();
        const { code, reason } = await ended;
        assert.deepEqual({ code, reason }, { code: 103, reason: "permission denied" });
      });
    });
  }

  for (const path of ["/ws", "/connection/websocket"]) {
    describe(`ws on ${path}`, { concurrency: true }, () => {
      test("what is published on one node is heard on the other, until unsubscribed", async (t) => {
        const room = freshRoom();
        const speaker = await PlainClient.connected("a", path, "alice");
        const leaver = await PlainClient.connected("b", path, "bob");
        const stayer = await PlainClient.connected("b", path, "carol");
        t.after(() => { speaker.close(); leaver.close(); stayer.close(); });
        for (const client of [speaker, leaver, stayer]) {
          assert.ok((await client.ask("subscribe", { channel: room })).subscribe);
        }
        assert.deepEqual((await speaker.ask("publish", { channel: room, data: { n: 1 } })).publish, {});
        const { push } = await leaver.hears(room, (data) => data.n === 1);
        assert.equal(push.pub.info.user, "alice");
        assert.deepEqual((await leaver.ask("unsubscribe", { channel: room })).unsubscribe, {});
        await speaker.ask("publish", { channel: room, data: { n: 2 } });
        await stayer.hears(room, (data) => data.n === 2);
        const refused = await leaver.ask("publish", { channel: room, data: { n: 0 } });
        assert.equal(refused.error.code, 103);
        assert.equal(leaver.seen.all.filter((item) => item.push?.pub).length, 1);
      });

      test("the connect reply names the node", async (t) => {
        const client = await PlainClient.connected("b", path);
        t.after(() => client.close());
        assert.equal(client.greeting.node, "node-b");
      });

      test("several pings are answered and the connection stays", async (t) => {
        const native = path === "/ws";
        const client = await PlainClient.connected("a", path);
        t.after(() => client.close());
        const isPing = (item) => (native ? item.nativePing : Object.keys(item).length === 0);
        let from = 0;
        for (let pings = 0; pings < 3; pings += 1) {
          await client.seen.first("a ping", isPing, from);
          from = client.seen.all.findIndex((item, at) => at >= from && isPing(item)) + 1;
        }
        const other = (item) => (native ? Object.keys(item).length === 0 : item.nativePing);
        assert.ok(!client.seen.all.some(other), "only one kind of ping is sent");
        const reply = await client.ask("subscribe", { channel: freshRoom() });
        assert.ok(reply.subscribe);
      });

      test("refused and expired tokens, and a closed room", async (t) => {
        const refused = new PlainClient("a", path);
        const expired = new PlainClient("a", path);
        const client = await PlainClient.connected("a", path);
        t.after(() => { refused.close(); expired.close(); client.close(); });
        await refused.seen.first("open", (item) => item.open);
        const wrong = await token("mallory", { secret: "another-secret-of-more-than-32-bytes" });
        refused.socket.send(JSON.stringify({ id: 1, connect: { token: wrong } }));
        const end = await refused.seen.first("the close", (item) => item.closed);
        assert.equal(end.closed, 3500);
        assert.notEqual(end.reason, "");
        await expired.seen.first("open", (item) => item.open);
        const late = await expired.ask("connect", { token: await token("alice", { expires: -60 }) });
        assert.equal(late.error.code, 109);
        const denied = await client.ask("subscribe", { channel: "closed:room" });
        assert.deepEqual(denied.error, { code: 103, message: "permission denied" });
      });
    });
  }

  test("a client that answers no ping is closed with 3012", async () => {
    const client = await PlainClient.connected("a", "/connection/websocket", "alice", { answersPings: false });
    const end = await client.seen.first("the close", (item) => item.closed);
    assert.equal(end.closed, 3012);
  });
});
