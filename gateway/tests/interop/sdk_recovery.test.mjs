// The cases of the official JavaScript SDK's own suites for recovery, deltas and state that the application loads by itself,
// as far as they are about rooms with a history. Each bears the name that it has there; README.md beside this file lists
// them. What is published comes from the backend, at the other node.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { errorCodes, SubscriptionState } from "centrifuge";
import { api, eventually, freshRoom, PLACE as place } from "./support.mjs";
import { clientOver, WAYS } from "./streams.mjs";

const isPublication = (item) => item.data !== undefined;
const isSubscribed = (item) => item.state === "subscribed";
const data = (publications) => publications.map((item) => item.data);

/** A client in a room that was told the first publication. */
async function inRoom({ open, say, room }, first, options) {
  const client = open();
  await client.connect();
  const { subscription, heard } = await client.subscribe(room, options);
  await say(first);
  assert.deepEqual((await heard.first("the first publication", isPublication)).data, first);
  return { client, subscription, heard };
}

/** Leaves by `leave`, has `missed` published meanwhile, comes back by `come` and expects to be given it. */
async function missing({ say }, { heard }, { leave, come, missed }) {
  leave();
  for (const publication of missed) await say(publication);
  const from = heard.mark;
  come();
  const { recovered, wasRecovering } = await heard.first("the subscription", isSubscribed, from);
  assert.deepEqual({ recovered, wasRecovering }, { recovered: true, wasRecovering: true });
  assert.deepEqual(data(await heard.several("what was missed", missed.length, isPublication, from)), missed);
}

/** The next publication comes live, and alone. */
async function goesOn({ say }, { heard }, publication) {
  const from = heard.mark;
  await say(publication);
  await heard.first("what comes live", isPublication, from);
  assert.deepEqual(heard.all.slice(from), [{ data: publication, user: undefined, offset: heard.all.at(-1).offset }]);
}

/** What an application does: it asks its backend how far the room is. */
const positionBy = (place, room) => async () => {
  const { offset, epoch } = await api(place.second, "history", { channel: room, limit: 0 });
  return { offset, epoch };
};

const RECOVERY = {
  "stream: recovery after disconnect delivers missed publications": ["recovery", async (world) => {
    const member = await inRoom(world, { seq: 1, msg: "before" });
    await missing(world, member, {
      leave: () => member.client.close(),
      come: () => member.client.sdk.connect(),
      missed: [2, 3, 4].map((seq) => ({ seq, msg: "missed" })),
    });
    await goesOn(world, member, { seq: 5, msg: "after" });
  }],

  "stream: recovery after unsubscribe/resubscribe": ["recovery", async (world) => {
    const member = await inRoom(world, { seq: 1, msg: "before" });
    await missing(world, member, {
      leave: () => member.subscription.unsubscribe(),
      come: () => member.subscription.subscribe(),
      missed: [2, 3].map((seq) => ({ seq, msg: "while away" })),
    });
  }],

  "stream: unrecoverable position resubscribes without recovery": ["smallhistory", async (world) => {
    const member = await inRoom(world, { seq: 1 });
    const { subscription, heard } = member;
    subscription.unsubscribe();
    for (const seq of [2, 3, 4, 5]) await world.say({ seq });
    const from = heard.mark;
    subscription.subscribe();
    const { recovered, wasRecovering } = await heard.first("the subscription", isSubscribed, from);
    assert.deepEqual({ recovered, wasRecovering }, { recovered: false, wasRecovering: true });
    await goesOn(world, member, { seq: 6 });
  }],
};

const DELTA = {
  "stream delta: successive publications decoded correctly": ["delta", async ({ open, say, room }) => {
    const client = open();
    await client.connect();
    const { subscription, heard } = await client.subscribe(room, { delta: "fossil" });
    const payload = "a".repeat(500);
    const said = [{ counter: 1, payload }, { counter: 2, payload }, { counter: 3, payload: `${payload.slice(1)}b` }];
    for (const publication of said) await say(publication);
    assert.deepEqual(data(await heard.several("publications", 3, isPublication)), said);
    patched(subscription, { full: 1, deltas: 2 });
  }],

  "stream delta: recovery after disconnect": ["delta", async (world) => {
    const member = await inRoom(world, { step: 1, value: "hello world" }, { delta: "fossil" });
    await missing(world, member, {
      leave: () => member.client.close(),
      come: () => member.client.sdk.connect(),
      missed: [{ step: 2, value: "hello world!" }, { step: 3, value: "hello earth!" }],
    });
    await goesOn(world, member, { step: 4, value: "hello earth!!" });
  }],

  "stream delta: recovery after unsubscribe/resubscribe": ["delta", async (world) => {
    const member = await inRoom(world, { n: 1, text: "base message content" }, { delta: "fossil" });
    await missing(world, member, {
      leave: () => member.subscription.unsubscribe(),
      come: () => member.subscription.subscribe(),
      missed: [{ n: 2, text: "base message content updated" }, { n: 3, text: "base message content updated again" }],
    });
    await goesOn(world, member, { n: 4, text: "base message content updated once more" });
  }],

  "stream delta: many publications with small diffs": ["delta", async ({ open, say, room }) => {
    const client = open();
    await client.connect();
    const { subscription, heard } = await client.subscribe(room, { delta: "fossil" });
    const said = Array.from({ length: 10 }, (_, index) => ({ index, padding: "x".repeat(500) }));
    for (const publication of said) await say(publication);
    assert.deepEqual(data(await heard.several("publications", 10, isPublication)), said);
    patched(subscription, { full: 1, deltas: 9 });
  }],
};

function patched(subscription, { full, deltas }) {
  const stats = subscription.deltaStats();
  assert.equal(stats.numPublications, full + deltas);
  assert.equal(stats.numFullPayloads, full);
  assert.equal(stats.numDeltaPayloads, deltas);
  assert.ok(stats.bytesReceived < stats.bytesDecoded, `${stats.bytesReceived} bytes came for ${stats.bytesDecoded}`);
  assert.ok(stats.compressionRatio > 0);
}

/** Counts how often it is asked; `answer` gets the number of the question. */
function state(answer) {
  const source = { asked: 0 };
  source.get = async () => {
    source.asked += 1;
    return answer(source.asked);
  };
  return source;
}

/** The position of a room from which nothing was heard yet. */
async function startOf({ open, room }) {
  const client = open();
  await client.connect();
  const { heard } = await client.subscribe(room, { recoverable: true });
  const { position } = await heard.first("the subscription", isSubscribed);
  client.close();
  return position;
}

const GET_STATE = {
  "getState is called on initial subscribe and position is used for recovery": ["", async ({ open, say, room }) => {
    for (const i of [1, 2, 3]) await say({ i });
    const source = state(() => ({ offset: 0, epoch: "" }));
    const client = open();
    client.sdk.connect();
    const { heard } = await client.subscribe(room, { getState: source.get });
    assert.equal(source.asked, 1);
    const publications = await heard.several("publications", 3, isPublication);
    assert.deepEqual(data(publications), [{ i: 1 }, { i: 2 }, { i: 3 }]);
  }],

  "getState is NOT called on reconnect when recovery succeeds": ["", async ({ open, room }) => {
    const source = state(() => ({ offset: 0, epoch: "" }));
    const client = open();
    client.sdk.connect();
    const { heard } = await client.subscribe(room, { recoverable: true, getState: source.get });
    client.close();
    const from = heard.mark;
    client.sdk.connect();
    const { recovered } = await heard.first("the subscription", isSubscribed, from);
    assert.equal(recovered, true);
    assert.equal(source.asked, 1);
  }],

  "without getState, subscribe uses since option (backward compat)": ["", async ({ open, say, room }) => {
    await say({ i: 1 });
    const client = open();
    client.sdk.connect();
    const { heard } = await client.subscribe(room, { since: { offset: 0, epoch: "" } });
    assert.deepEqual((await heard.first("the publication", isPublication)).data, { i: 1 });
  }],

  "getState error triggers resubscribe with error event (matches map subscription behavior)": ["", async ({ open, room }) => {
    const source = state((asked) => {
      if (asked === 1) throw new Error("no database");
      return { offset: 0, epoch: "" };
    });
    const client = open();
    await client.connect();
    const { heard } = await client.subscribe(room, { minResubscribeDelay: 20, maxResubscribeDelay: 20, getState: source.get });
    assert.equal(source.asked, 2);
    const { error, type, message } = await heard.first("the error", (item) => item.error);
    assert.deepEqual({ error, type }, { error: errorCodes.subscriptionGetState, type: "subscribe" });
    assert.match(message, /no database/);
  }],

  "getState persistent failure keeps retrying without unsubscribing": ["", async ({ open, room }) => {
    const source = state(() => { throw new Error("no database"); });
    const client = open();
    client.sdk.connect();
    const { subscription } = client.subscription(room, { minResubscribeDelay: 20, maxResubscribeDelay: 20, getState: source.get });
    subscription.subscribe();
    await eventually("several attempts", () => source.asked, (asked) => asked > 3);
    assert.equal(subscription.state, SubscriptionState.Subscribing);
    subscription.unsubscribe();
  }],

  "getState with real position recovers missed publications": ["", async (world) => {
    const { epoch } = await startOf(world);
    for (const i of [1, 2]) await world.say({ i });
    const client = world.open();
    client.sdk.connect();
    const { heard } = await client.subscribe(world.room, { getState: async () => ({ offset: 0, epoch }) });
    assert.deepEqual(data(await heard.several("publications", 2, isPublication)), [{ i: 1 }, { i: 2 }]);
  }],

  "getState is called when recovery fails (unrecoverable position)": ["smallhistory", async (world) => {
    await startOf(world);
    const source = state(positionBy(world.place, world.room));
    const client = world.open();
    await client.connect();
    const { heard } = await client.subscribe(world.room, { minResubscribeDelay: 20, maxResubscribeDelay: 20, getState: source.get });
    assert.equal(source.asked, 1);
    client.close();
    for (const i of [1, 2, 3, 4, 5]) await world.say({ i });
    const from = heard.mark;
    client.sdk.connect();
    const { recovered } = await heard.first("the subscription", isSubscribed, from);
    assert.equal(recovered, true);
    assert.equal(source.asked, 2);
    await world.say({ i: 6 });
    assert.deepEqual((await heard.first("what comes live", isPublication, from)).data, { i: 6 });
  }],
};

/** What the SDK's suites leave out: nodes are many, and those who hear a room differ. */
const BEYOND = {
  "a position of one node is good at the other": ["recovery", async (world) => {
    const member = await inRoom(world, { seq: 1 });
    const { epoch } = (await member.heard.first("the subscription", isSubscribed)).position;
    member.client.close();
    await world.say({ seq: 2 });
    const elsewhere = world.open({}, { first: world.place.second, second: world.place.first });
    await elsewhere.connect();
    const { heard } = await elsewhere.subscribe(world.room, { since: { offset: 1, epoch } });
    assert.equal((await heard.first("the subscription", isSubscribed)).recovered, true);
    assert.deepEqual(data(await heard.several("publications", 1, isPublication)), [{ seq: 2 }]);
  }],

  "a room heard with and without deltas, at both nodes": ["delta", async (world) => {
    const places = [world.place, { first: world.place.second, second: world.place.first }];
    const members = [];
    for (const place of places) {
      for (const options of [{ delta: "fossil" }, {}]) {
        const client = world.open({}, place);
        await client.connect();
        members.push({ options, ...(await client.subscribe(world.room, options)) });
      }
    }
    const said = [1, 2, 3].map((n) => ({ n, text: "ça marche ✓ ".repeat(20) }));
    for (const publication of said) await world.say(publication);
    for (const { options, subscription, heard } of members) {
      assert.deepEqual(data(await heard.several("publications", 3, isPublication)), said);
      if (options.delta) patched(subscription, { full: 1, deltas: 2 });
      else assert.equal(subscription.deltaStats().numDeltaPayloads, 0);
    }
  }],

  "a speaker with deltas hears itself": ["delta", async ({ open, room }) => {
    const client = open();
    await client.connect();
    const { subscription, heard } = await client.subscribe(room, { delta: "fossil" });
    const said = [1, 2, 3].map((n) => ({ n, text: "same ".repeat(50) }));
    for (const publication of said) await subscription.publish(client.encoded(publication));
    assert.deepEqual(data(await heard.several("publications", 3, isPublication)), said);
    patched(subscription, { full: 1, deltas: 2 });
  }],
};

describe(`centrifuge for JavaScript, rooms in ${place.broker}`, { concurrency: true }, () => {
  for (const way of WAYS) {
    describe(`${way.transport}, ${way.encoding}`, { concurrency: 2 }, () => {
      for (const [name, [namespace, run]] of Object.entries({ ...RECOVERY, ...DELTA, ...GET_STATE, ...BEYOND })) {
        test(name, async (t) => {
          const room = freshRoom(namespace);
          const open = (options, at = place) => {
            const client = clientOver(way, at, options);
            t.after(() => client.close());
            return client;
          };
          const say = (publication) => api(place.second, "publish", { channel: room, data: publication });
          await run({ open, say, place, way, room });
        });
      }
    });
  }
});
