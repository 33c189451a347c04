// The official JavaScript SDK with rooms that have rules: filters by tags, deltas on demand, who is there, what was said,
// rooms that the server puts a client into, tokens that run out, and state that the server declares void.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { State, SubscriptionState } from "centrifuge";
import { api, DEADLINE_MS, eventually, freshRoom, PLACE as place, token } from "./support.mjs";
import { clientOver, WAYS } from "./streams.mjs";

const isPublication = (item) => item.data !== undefined;
const isSubscribed = (item) => item.state === "subscribed";
const data = (publications) => publications.map((item) => item.data);
const swapped = ({ first, second }) => ({ first: second, second: first });

const leaf = (key, cmp, val) => (Array.isArray(val) ? { key, cmp, vals: val } : { key, cmp, ...(val === undefined ? {} : { val }) });
const all = (...nodes) => ({ op: "and", nodes });
const any = (...nodes) => ({ op: "or", nodes });
const not = (node) => ({ op: "not", nodes: [node] });

/** Publications by their tags; they are said in this order, and are named by their place in it. */
const TAGGED = [{ coin: "BTC", price: "90.5" }, { coin: "ETH", price: "9" }, { coin: "BTCUSD" }, {}];
const FILTERS = [
  [leaf("coin", "eq", "BTC"), [0]],
  [leaf("coin", "neq", "BTC"), [1, 2, 3]],
  [leaf("coin", "in", ["BTC", "ETH"]), [0, 1]],
  [leaf("coin", "nin", ["BTC", "ETH"]), [2, 3]],
  [leaf("price", "ex"), [0, 1]],
  [leaf("price", "nex"), [2, 3]],
  [leaf("coin", "sw", "BTC"), [0, 2]],
  [leaf("coin", "ew", "USD"), [2]],
  [leaf("coin", "ct", "T"), [0, 1, 2]],
  [leaf("price", "lt", "10"), [1]],
  [leaf("price", "lte", "9"), [1]],
  [leaf("price", "gt", "9"), [0]],
  [leaf("price", "gte", "9"), [0, 1]],
  [all(leaf("coin", "sw", "BTC"), leaf("price", "ex")), [0]],
  [any(leaf("coin", "eq", "ETH"), leaf("coin", "ew", "USD")), [1, 2]],
  [not(leaf("coin", "ct", "T")), [3]],
  [all(not(leaf("coin", "eq", "ETH")), any(leaf("price", "gt", "50"), leaf("price", "nex"))), [0, 2, 3]],
];

async function sayTagged({ say }) {
  for (const [n, tags] of TAGGED.entries()) await say({ n }, { tags });
}

/**
 * Tokens that run out soon until one `got` its owner in, each twice as late as the one before, because one that comes too
 * late is refused; then one that lasts.
 */
function soonOver(got, give) {
  const source = { lasting: 0 };
  let expires = 1;
  source.get = () => {
    if (!got()) return give((expires *= 2));
    source.lasting += 1;
    return give(3600);
  };
  return source;
}

const CASES = {
  "every filter lets through what it means, and nothing else": ["tagged", async (world) => {
    const client = await world.member();
    const members = [];
    // One client can be in a room once, so each filter has a room of its own.
    for (const [filter, wanted] of FILTERS) {
      const room = freshRoom("tagged");
      members.push({ filter, wanted, room, ...(await client.subscribe(room, { tagsFilter: filter })) });
    }
    // The last room hears the last publication, which is behind all others on its way: then nothing more can come.
    const rooms = members.map(({ room }) => room);
    for (const [n, tags] of TAGGED.entries()) await api(world.place.second, "broadcast", { channels: rooms, data: { n }, tags });
    await members.at(-1).heard.first("the last publication", (item) => item.data?.n === TAGGED.length - 1);
    for (const { filter, wanted, heard } of members) {
      const said = heard.all.filter(isPublication);
      assert.deepEqual(said.map((item) => item.data.n), wanted, JSON.stringify(filter));
      assert.deepEqual(said.map((item) => item.tags ?? {}), wanted.map((n) => TAGGED[n]));
    }
  }],

  "a filter holds for what is recovered": ["tagged", async (world) => {
    const client = await world.member();
    const { heard } = await client.subscribe(world.room, { recoverable: true, tagsFilter: leaf("coin", "eq", "BTC") });
    await sayTagged(world);
    await heard.first("what comes live", isPublication);
    client.close();
    await sayTagged(world);
    await sayTagged(world);
    const from = heard.mark;
    client.sdk.connect();
    const { recovered } = await heard.first("the subscription", isSubscribed, from);
    assert.equal(recovered, true);
    await sayTagged(world);
    const publications = await heard.several("publications", 3, isPublication, from);
    assert.deepEqual(publications.map(({ data: { n }, tags }) => ({ n, tags })), [1, 2, 3].map(() => ({ n: 0, tags: TAGGED[0] })));
  }],

  "a filter that is changed holds from the next subscription on": ["tagged", async (world) => {
    const client = await world.member();
    const { subscription, heard } = await client.subscribe(world.room, { tagsFilter: leaf("coin", "eq", "BTC") });
    await sayTagged(world);
    await heard.first("BTC", (item) => item.data?.n === 0);
    subscription.setTagsFilter(leaf("coin", "eq", "ETH"));
    subscription.unsubscribe();
    subscription.subscribe();
    await subscription.ready(DEADLINE_MS);
    const from = heard.mark;
    await sayTagged(world);
    await heard.first("ETH", isPublication, from);
    assert.deepEqual(data(heard.all.slice(from).filter(isPublication)), [{ n: 1 }]);
  }],

  "a filter is refused where the room has none": ["asked", async (world) => {
    const client = await world.member();
    const { subscription, heard } = client.subscription(world.room, { tagsFilter: leaf("coin", "eq", "BTC") });
    subscription.subscribe();
    assert.equal((await heard.first("the refusal", (item) => item.state === "unsubscribed")).code, 107);
  }],

  "deltas are sent where the publisher asks for them": ["patched", async (world) => {
    const client = await world.member();
    const { subscription, heard } = await client.subscribe(world.room, { delta: "fossil", recoverable: true });
    const text = "the same again ".repeat(30);
    const said = [];
    const say = async (delta) => {
      said.push({ n: said.length, text });
      await world.say(said.at(-1), { delta });
      await heard.several("publications", said.length, isPublication);
    };
    for (const delta of [true, true, false, true]) await say(delta);
    const { numFullPayloads, numDeltaPayloads } = subscription.deltaStats();
    assert.deepEqual({ numFullPayloads, numDeltaPayloads }, { numFullPayloads: 2, numDeltaPayloads: 2 });
    client.close();
    for (let missed = 0; missed < 3; missed += 1) await world.say(said[said.push({ n: said.length, text }) - 1], { delta: true });
    const from = heard.mark;
    client.sdk.connect();
    assert.equal((await heard.first("the subscription", isSubscribed, from)).recovered, true);
    await say(true);
    assert.deepEqual(data(heard.all.filter(isPublication)), said);
  }],

  "who asks for it is told who comes and goes": ["seen", async (world) => {
    const watcher = await world.member("wanda");
    const { heard } = await watcher.subscribe(world.room, { joinLeave: true });
    const unasked = await (await world.member("una")).subscribe(world.room);
    const guest = await world.member("gus", { info: { name: "Gus" } }, swapped(world.place));
    const { subscription } = await guest.subscribe(world.room);
    const { client: id } = await guest.state("connected");
    const who = { client: id, user: "gus", connInfo: { name: "Gus" } };
    assert.deepEqual((await heard.first("the guest", (item) => item.joined?.user === "gus")).joined, who);
    subscription.unsubscribe();
    assert.deepEqual((await heard.first("the guest to go", (item) => item.left)).left, who);
    const from = heard.mark;
    subscription.subscribe();
    await heard.first("the guest again", (item) => item.joined?.user === "gus", from);
    guest.close();
    assert.deepEqual((await heard.first("the guest to go", (item) => item.left, from)).left, who);
    assert.ok(!unasked.heard.all.some((item) => item.joined || item.left));
  }],

  "where a room tells everybody who comes and goes, nobody has to ask": ["told", async (world) => {
    const watcher = await world.member("wanda");
    const { heard } = await watcher.subscribe(world.room);
    const guest = await world.member("gus", {}, swapped(world.place));
    await guest.subscribe(world.room);
    const { client: id } = await guest.state("connected");
    await heard.first("the guest", (item) => item.joined?.client === id);
    guest.close();
    await heard.first("the guest to go", (item) => item.left?.client === id);
  }],

  "a room of a token tells who comes and goes as well": ["told", async (world) => {
    const watcher = world.open({ token: await token("wanda", { channels: [world.room] }) });
    const heard = watcher.serverSide();
    await watcher.connect();
    const guest = await world.member("gus", {}, swapped(world.place));
    await guest.subscribe(world.room);
    const { client: id } = await guest.state("connected");
    await heard.first("the guest", (item) => item.channel === world.room && item.joined?.client === id);
    guest.close();
    await heard.first("the guest to go", (item) => item.channel === world.room && item.left?.client === id);
  }],

  "presence is of both nodes": ["seen", async (world) => {
    const asking = await world.member("ann", { info: { name: "Ann" } });
    const { subscription } = await asking.subscribe(world.room);
    const other = await world.member("bob", {}, swapped(world.place));
    const admission = await token("bob", { channel: world.room, info: { seat: 3 } });
    const theirs = await other.subscribe(world.room, { token: admission });
    const again = await world.member("bob");
    await again.subscribe(world.room);
    const ids = [];
    for (const client of [asking, other, again]) ids.push((await client.state("connected")).client);
    const { clients } = await subscription.presence();
    assert.deepEqual(Object.keys(clients).sort(), [...ids].sort());
    const identities = ids.map((id) => asking.identity(clients[id]));
    assert.deepEqual(identities, [
      { client: ids[0], user: "ann", connInfo: { name: "Ann" } },
      { client: ids[1], user: "bob", chanInfo: { seat: 3 } },
      { client: ids[2], user: "bob" },
    ]);
    assert.deepEqual(await subscription.presenceStats(), { numClients: 3, numUsers: 2 });
    theirs.subscription.unsubscribe();
    await eventually("one to have gone", () => subscription.presenceStats(), ({ numClients }) => numClients === 2);
  }],

  "presence is not for those outside, nor kept in every room": ["seen", async (world) => {
    const client = await world.member();
    await assert.rejects(client.sdk.presence(world.room), { code: 103 });
    const other = freshRoom("asked");
    const { subscription } = await client.subscribe(other);
    await assert.rejects(subscription.presence(), { code: 108 });
    await assert.rejects(subscription.presenceStats(), { code: 108 });
  }],

  "history: the position, pages in both directions, and what is gone": ["asked", async (world) => {
    const client = await world.member();
    const { subscription } = await client.subscribe(world.room);
    for (let n = 1; n <= 12; n += 1) await world.say({ n }, n === 12 ? { tags: { last: "yes" } } : {});
    const asked = async (options) => {
      const { publications, offset, epoch } = await subscription.history(options);
      return { said: publications.map((item) => client.decoded(item.data).n), publications, offset, epoch };
    };
    const { said, offset, epoch } = await asked();
    assert.deepEqual({ said, offset }, { said: [], offset: 12 });
    assert.deepEqual((await asked({ limit: 3 })).said, [3, 4, 5]);
    assert.deepEqual((await asked({ limit: 3, since: { offset: 5, epoch } })).said, [6, 7, 8]);
    assert.deepEqual((await asked({ limit: 3, reverse: true })).said, [12, 11, 10]);
    assert.deepEqual((await asked({ limit: 3, since: { offset: 10, epoch }, reverse: true })).said, [9, 8, 7]);
    assert.deepEqual((await asked({ limit: 100, since: { offset: 12, epoch } })).said, []);
    const newest = (await asked({ limit: 1, reverse: true })).publications[0];
    assert.deepEqual({ offset: newest.offset, tags: { ...newest.tags } }, { offset: 12, tags: { last: "yes" } });
    await assert.rejects(subscription.history({ limit: 1, since: { offset: 1, epoch: "other" } }), { code: 112 });
    await api(world.place.second, "history_remove", { channel: world.room });
    assert.deepEqual((await asked({ limit: 100 })).said, []);
  }],

  "history is not for those outside, nor kept in every room": ["asked", async (world) => {
    const client = await world.member();
    await assert.rejects(client.sdk.history(world.room, { limit: 1 }), { code: 103 });
    const { subscription } = await client.subscribe(freshRoom("seen"));
    await assert.rejects(subscription.history({ limit: 1 }), { code: 108 });
  }],

  "rooms of a token give back what was missed": ["asked", async (world) => {
    const other = freshRoom();
    const claims = { subs: { [world.room]: { data: { hello: "there" }, override: { force_recovery: { value: true } } }, [other]: {} } };
    const client = world.open({ getToken: () => token("alice", claims) });
    const heard = client.serverSide();
    await client.connect();
    const inside = (room) => (item) => isSubscribed(item) && item.channel === room;
    assert.deepEqual((await heard.first("the room", inside(world.room))).given, { hello: "there" });
    await heard.first("the other room", inside(other));
    await world.say({ n: 1 });
    await heard.first("what comes live", (item) => item.data?.n === 1);
    client.close();
    for (const n of [2, 3]) await world.say({ n });
    const from = heard.mark;
    client.sdk.connect();
    const { wasRecovering, recovered } = await heard.first("the room again", inside(world.room), from);
    assert.deepEqual({ wasRecovering, recovered }, { wasRecovering: true, recovered: true });
    await world.say({ n: 4 });
    const publications = await heard.several("publications", 3, isPublication, from);
    assert.deepEqual(publications.map((item) => [item.channel, item.data.n]), [2, 3, 4].map((n) => [world.room, n]));
  }],

  "the backend puts a client into a room and takes it out": ["asked", async (world) => {
    const user = freshRoom();
    const client = await world.member(user);
    const heard = client.serverSide();
    for (const n of [1, 2]) await world.say({ n });
    const { epoch } = await api(world.place.second, "history", { channel: world.room });
    await api(world.place.second, "subscribe", {
      user, channel: world.room, data: { from: "backend" }, recover_since: { offset: 1, epoch }, override: { force_recovery: { value: true } },
    });
    const { given } = await heard.first("the room", isSubscribed);
    assert.deepEqual(given, { from: "backend" });
    await world.say({ n: 3 });
    assert.deepEqual(data(await heard.several("publications", 2, isPublication)), [{ n: 2 }, { n: 3 }]);
    await api(world.place.second, "unsubscribe", { user, channel: world.room });
    await heard.first("the end", (item) => item.state === "unsubscribed" && item.channel === world.room);
    const { subscription, heard: own } = await client.subscribe(world.room);
    await api(world.place.second, "unsubscribe", { user, channel: world.room });
    assert.equal((await own.first("the end", (item) => item.state === "unsubscribed")).code, 2000);
    assert.equal(subscription.state, SubscriptionState.Unsubscribed);
  }],

  "a room's token that runs out is asked for anew, and the subscription stays": ["closed", async (world) => {
    const client = await world.member();
    let heard;
    const tokens = soonOver(() => heard?.all.some(isSubscribed), (expires) => token("alice", { channel: world.room, data: { seat: 3 }, expires }));
    const made = client.subscription(world.room, { getToken: tokens.get });
    heard = made.heard;
    made.subscription.subscribe();
    assert.deepEqual((await heard.first("the subscription", isSubscribed)).given, { seat: 3 });
    const from = heard.mark;
    await eventually("a token that lasts", () => tokens.lasting, Boolean);
    // The answer to a later command: the refresh is answered.
    await assert.rejects(client.sdk.rpc("method", client.encoded({})), { code: 108 });
    await world.say({ n: 1 });
    await heard.first("the publication", isPublication);
    assert.equal(made.subscription.state, SubscriptionState.Subscribed);
    assert.deepEqual(data(heard.all.slice(from)), [{ n: 1 }]);
  }],

  "a connection's token that runs out is asked for anew, and the connection stays": ["asked", async (world) => {
    const client = world.open({ getToken: () => tokens.get() });
    const isConnected = (item) => item.state === "connected";
    const tokens = soonOver(() => client.seen.all.some(isConnected), (expires) => token("alice", { expires }));
    await client.connect();
    await eventually("a token that lasts", () => tokens.lasting, Boolean);
    const { subscription } = await client.subscribe(world.room);
    await subscription.publish(client.encoded({ n: 1 }));
    const states = client.seen.all.filter((item) => item.state || item.error);
    assert.deepEqual(states.slice(states.findIndex(isConnected)).map((item) => item.state), ["connected"]);
  }],

  "a connection that the backend declares expired comes back with another token": ["asked", async (world) => {
    const user = freshRoom();
    let asked = 0;
    const client = world.open({ getToken: () => token(user, { n: (asked += 1) }) });
    await client.connect();
    const from = client.seen.mark;
    await api(world.place.second, "refresh", { user, expired: true });
    assert.equal((await client.state("connecting", from)).code, 3005);
    await client.state("connected", from);
  }],

  "state invalidated disconnect (3014) clears token and state": ["patched", async (world) => {
    const user = freshRoom();
    const asked = { connection: 0, subscription: 0 };
    const counted = (what, claims = {}) => {
      asked[what] += 1;
      return token(user, claims);
    };
    const client = world.open({ getToken: () => counted("connection") });
    await client.connect();
    const { subscription, heard } = await client.subscribe(world.room, {
      recoverable: true, delta: "fossil", getToken: () => counted("subscription", { channel: world.room }),
    });
    const text = "the same again ".repeat(30);
    await world.say({ n: 1, text }, { delta: true });
    await heard.first("the publication", isPublication);
    const [from, before] = [client.seen.mark, heard.mark];
    await api(world.place.second, "disconnect", { user, disconnect: { code: 3014 } });
    const { code, reason } = await client.state("connecting", from);
    assert.deepEqual({ code, reason }, { code: 3014, reason: "state invalidated" });
    await client.state("connected", from);
    // It asks to recover from a position that cannot be, so that the application knows that it has to begin again.
    const { wasRecovering, recovered, position } = await heard.first("the subscription", isSubscribed, before);
    assert.deepEqual({ wasRecovering, recovered, offset: position.offset }, { wasRecovering: true, recovered: false, offset: 1 });
    assert.deepEqual(asked, { connection: 2, subscription: 2 });
    // What a delta would be to is gone as well: the first publication comes whole.
    for (const n of [2, 3]) await world.say({ n, text }, { delta: true });
    await heard.first("what comes live", (item) => item.data?.n === 3, before);
    assert.deepEqual(data(heard.all.slice(before).filter(isPublication)), [{ n: 2, text }, { n: 3, text }]);
    const { numFullPayloads, numDeltaPayloads } = subscription.deltaStats();
    assert.deepEqual({ numFullPayloads, numDeltaPayloads }, { numFullPayloads: 2, numDeltaPayloads: 1 });
    assert.equal(client.sdk.state, State.Connected);
  }],

  "a client that is sent away stays away, one that is sent elsewhere comes back": ["asked", async (world) => {
    for (const [code, final] of [[3503, true], [4500, true], [3011, false], [4000, false]]) {
      const user = freshRoom();
      const client = await world.member(user);
      const from = client.seen.mark;
      await api(world.place.second, "disconnect", { user, disconnect: { code, reason: "by hand" } });
      const end = await client.state(final ? "disconnected" : "connecting", from);
      assert.equal(end.code, code);
      if (final) assert.equal(client.sdk.state, State.Disconnected);
      else await client.state("connected", from);
    }
  }],
};

describe(`centrifuge for JavaScript, rooms in ${place.broker}`, { concurrency: true }, () => {
  for (const way of WAYS) {
    describe(`${way.transport}, ${way.encoding}`, { concurrency: 2 }, () => {
      for (const [name, [namespace, run]] of Object.entries(CASES)) {
        test(name, async (t) => {
          const room = freshRoom(namespace);
          const open = (options, at = place) => {
            const client = clientOver(way, at, options);
            t.after(() => client.close());
            return client;
          };
          const member = async (user = "alice", claims = {}, at = place) => {
            const client = open({ token: await token(user, claims) }, at);
            await client.connect();
            return client;
          };
          const say = (publication, more = {}) => api(place.second, "publish", { channel: room, data: publication, ...more });
          await run({ open, member, say, place, way, room });
        });
      }
    });
  }
});
