// Clients that only listen, without any library but what a browser has.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { freshRoom, SdkClient, token } from "./support.mjs";
import { Listener } from "./streams.mjs";

const isPing = (item) => Object.keys(item).length === 0;
const told = (listener) => listener.seen.all.filter((item) => !item.opened && !isPing(item));
const listening = async (way, node, room, options) =>
  new Listener(way, node, { token: await token("lisa", { channels: [room] }) }, options);

describe("clients that only listen", { concurrency: true }, () => {
  for (const way of Listener.WAYS) {
    describe(way, { concurrency: true }, () => {
      test("it is in the rooms of its token and hears the other node", async (t) => {
        const room = freshRoom();
        const speaker = await SdkClient.connected("json", "a", "alice");
        const listener = await listening(way, "b", room);
        t.after(() => { speaker.close(); listener.close(); });
        const { connect } = await listener.seen.first("the greeting", (item) => item.connect);
        assert.equal(connect.node, "node-b");
        assert.deepEqual(connect.subs, { [room]: {} });
        await speaker.subscribe(room);
        for (const n of [1, 2, 3]) await speaker.publish(room, { n, text: "ça\nmarche ✓" });
        await listener.hears(room, (data) => data.n === 3);
        const heard = told(listener).slice(1).map(({ channel, pub }) => ({ channel, data: pub?.data, user: pub?.info?.user }));
        assert.deepEqual(heard, [1, 2, 3].map((n) => ({ channel: room, data: { n, text: "ça\nmarche ✓" }, user: "alice" })));
      });

      test("pings need no answer and the connection stays", async (t) => {
        const room = freshRoom();
        const speaker = await SdkClient.connected("json", "b");
        const listener = await listening(way, "a", room);
        t.after(() => { speaker.close(); listener.close(); });
        let from = 0;
        for (let pings = 0; pings < 3; pings += 1) {
          await listener.seen.first("a ping", isPing, from);
          from = listener.seen.all.findIndex((item, at) => at >= from && isPing(item)) + 1;
        }
        await speaker.subscribe(room);
        await speaker.publish(room, { n: 1 });
        await listener.hears(room, (data) => data.n === 1);
      });

      for (const [what, code, request] of [
        ["a token with a wrong signature", 3500, async () => ({ token: await token("mallory", { secret: "another-secret-of-more-than-32-bytes" }) })],
        ["an expired token", 3005, async () => ({ token: await token("alice", { expires: -60 }) })],
        ["no token", 3501, async () => ({})],
      ]) {
        test(`${what} ends it with ${code}`, async (t) => {
          const listener = new Listener(way, "a", await request());
          t.after(() => listener.close());
          assert.equal(await listener.code(), code);
          assert.equal(told(listener).filter((item) => item.connect).length, 0);
        });
      }

      if (way.startsWith("uni_websocket")) {
        test("one that does not answer WebSocket's pings is closed with 3012", async (t) => {
          const listener = await listening(way, "a", freshRoom(), { answersPings: false });
          t.after(() => listener.close());
          assert.equal(await listener.code(), 3012);
        });
      } else {
        test("the answer is a stream from the start", async (t) => {
          const listener = await listening(way, "a", freshRoom());
          t.after(() => listener.close());
          const { opened, status } = await listener.seen.first("the head of the answer", (item) => item.opened);
          assert.equal(status, 200);
          assert.match(opened, way === "uni_http_stream" ? /^application\/x-ndjson/ : /^text\/event-stream/);
        });
      }
    });
  }
});
