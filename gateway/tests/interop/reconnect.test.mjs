// A node is stopped under its clients: they go elsewhere or wait for it, and hear again.
import assert from "node:assert/strict";
import { test } from "node:test";
import { api, cluster, freshRoom, PlainClient, SdkClient, token } from "./support.mjs";
import { clientOver, Listener, StreamClient, STREAMS, WAYS } from "./streams.mjs";

test("clients of a stopped node come back and hear again", async (t) => {
  const room = freshRoom();
  const speaker = await SdkClient.connected("json", "a");
  const sdks = [];
  const connected = [SdkClient.connected("json", "b"), SdkClient.connected("protobuf", "b")];
  for (const way of STREAMS) connected.push(StreamClient.connected(way, "b"));
  for (const client of await Promise.all(connected)) sdks.push({ client, ...(await client.subscribe(room)) });
  const listening = { token: await token("lisa", { channels: [room] }) };
  const listeners = Listener.WAYS.map((way) => new Listener(way, "b", listening));
  for (const listener of listeners) await listener.seen.first("the greeting", (item) => item.connect);
  const plain = await PlainClient.connected("b", "/ws");
  await plain.ask("subscribe", { channel: room });
  await speaker.subscribe(room);
  t.after(() => { speaker.close(); plain.close(); sdks.forEach(({ client }) => client.close()); listeners.forEach((listener) => listener.close()); });

  await speaker.publish(room, { n: 1 });
  await plain.hears(room, (data) => data.n === 1);
  for (const { heard } of sdks) await heard.first("publication 1", (item) => item.data?.n === 1);
  const marks = sdks.map(({ client, heard }) => ({ client: client.seen.all.length, heard: heard.all.length }));

  await cluster("stop", "b");
  const end = await plain.seen.first("the close", (item) => item.closed);
  assert.equal(end.closed, 3001);
  for (const listener of listeners) assert.equal(await listener.code(), 3001);
  // A client that knows both addresses goes on at once.
  const moved = await PlainClient.connected("a", "/ws");
  t.after(() => moved.close());
  await moved.ask("subscribe", { channel: room });
  await speaker.publish(room, { n: 2 });
  await moved.hears(room, (data) => data.n === 2);

  await cluster("start", "b");
  for (const [at, { client, heard }] of sdks.entries()) {
    const lost = client.seen.all.slice(marks[at].client).find((item) => item.state);
    assert.deepEqual([lost.state, lost.code], ["connecting", 3001]);
    await client.state("connected", marks[at].client);
    await heard.first("the subscription", (item) => item.state === "subscribed", marks[at].heard);
  }
  await speaker.publish(room, { n: 3 });
  for (const { heard } of sdks) await heard.first("publication 3", (item) => item.data?.n === 3);
});

test("clients of a stopped node are given what they missed when they come back", async (t) => {
  const room = freshRoom("kept");
  const members = [];
  for (const way of WAYS) {
    // Commands go to the node that is stopped: the other one could not answer for it.
    const client = clientOver(way, { first: "b", second: "b" }, { token: await token("alice") });
    t.after(() => client.close());
    await client.connect();
    members.push({ client, ...(await client.subscribe(room, { recoverable: true })) });
  }
  const say = (n) => api("a", "publish", { channel: room, data: { n } });
  await say(1);
  for (const { heard } of members) await heard.first("publication 1", (item) => item.data?.n === 1);

  await cluster("stop", "b");
  for (const n of [2, 3, 4]) await say(n);
  const marks = members.map(({ heard }) => heard.mark);
  await cluster("start", "b");
  for (const [at, { heard }] of members.entries()) {
    const { recovered } = await heard.first("the subscription", (item) => item.state === "subscribed", marks[at]);
    assert.equal(recovered, true);
  }
  await say(5);
  for (const { heard } of members) {
    await heard.first("publication 5", (item) => item.data?.n === 5);
    assert.deepEqual(heard.all.filter((item) => item.data).map((item) => item.data.n), [1, 2, 3, 4, 5]);
  }
});
