// The cases of the official JavaScript SDK's own suite for its client, over each of its transports and in both encodings.
// Each bears the name that it has there; README.md beside this file lists them.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Centrifuge, connectingCodes, disconnectedCodes, State, SubscriptionState, UnauthorizedError, unsubscribedCodes } from "centrifuge";
import { UnauthorizedError as ProtobufUnauthorizedError } from "centrifuge/build/protobuf";
import { api, DEADLINE_MS, encoded, eventually, freshRoom, NODES, PLACE as place, token } from "./support.mjs";
import { clientOver, WAYS } from "./streams.mjs";

const unauthorized = ({ encoding }) => new (encoding === "protobuf" ? ProtobufUnauthorizedError : UnauthorizedError)("");

/** Fails when it is asked for the first time, and then gives what it is to give. */
function failingOnce(give) {
  const source = { asked: 0 };
  source.get = async () => {
    source.asked += 1;
    if (source.asked === 1) throw new Error("not this time");
    return give();
  };
  return source;
}

const CASES = {
  "connects and disconnects": async ({ open, place }) => {
    const client = open();
    await client.connect();
    const { client: id } = await client.state("connected");
    const known = () => api(place.second, "connections", { client: id });
    assert.ok((await known()).connections[id]);
    client.close();
    assert.equal((await client.state("disconnected")).code, disconnectedCodes.disconnectCalled);
    assert.equal(client.sdk.state, State.Disconnected);
    await eventually("the node to have seen it leave", known, ({ connections }) => !connections[id]);
  },

  "subscribe and unsubscribe": async ({ open, room }) => {
    const client = open();
    await client.connect();
    const { subscription, heard } = await client.subscribe(room);
    assert.equal(subscription.state, SubscriptionState.Subscribed);
    assert.equal(client.sdk.state, State.Connected);
    subscription.unsubscribe();
    client.close();
    const { code } = await heard.first("the end", (item) => item.state === "unsubscribed");
    assert.equal(code, unsubscribedCodes.unsubscribeCalled);
    assert.equal(subscription.state, SubscriptionState.Unsubscribed);
    assert.equal(client.sdk.state, State.Disconnected);
  },

  "publish and receive message": async ({ open, room }) => {
    const client = open();
    await client.connect();
    const { subscription, heard } = await client.subscribe(room);
    await subscription.publish(client.encoded({ my: "data" }));
    assert.deepEqual((await heard.first("the publication", (item) => item.data)).data, { my: "data" });
  },

  "rpc buffered till connected": async ({ open }) => {
    const client = open();
    const refused = assert.rejects(client.sdk.rpc("method", client.encoded({ my: "data" })), { code: 108 });
    await client.connect();
    await refused;
  },

  "handles offline/online events": async ({ open }) => {
    const network = new EventTarget();
    const client = open({ networkEventTarget: network });
    await client.connect();
    const from = client.seen.mark;
    network.dispatchEvent(new Event("offline"));
    assert.equal((await client.state("connecting", from)).code, connectingCodes.transportClosed);
    assert.equal(client.sdk.state, State.Connecting);
    network.dispatchEvent(new Event("online"));
    await client.state("connected", from);
    client.close();
    await client.state("disconnected", from);
    assert.equal(client.sdk.state, State.Disconnected);
  },

  "not connecting on online in disconnected state": async ({ open }) => {
    const network = new EventTarget();
    const client = open({ networkEventTarget: network });
    await client.connect();
    client.close();
    await client.state("disconnected");
    network.dispatchEvent(new Event("online"));
    assert.equal(client.sdk.state, State.Disconnected);
  },

  "subscribe and presence": async ({ open, place, room }) => {
    const client = open();
    await client.connect();
    const { subscription } = await client.subscribe(room);
    const { client: id } = await client.state("connected");
    assert.deepEqual(Object.keys((await subscription.presence()).clients), [id]);
    assert.deepEqual(await subscription.presenceStats(), { numClients: 1, numUsers: 1 });
    assert.deepEqual(Object.keys((await api(place.second, "presence", { channel: room })).presence), [id]);
  },

  "connect disconnect loop": async ({ open }) => {
    const client = open();
    for (let round = 0; round < 10; round += 1) {
      client.sdk.connect();
      client.close();
    }
    assert.equal(client.sdk.state, State.Disconnected);
    await client.state("disconnected");
    const from = client.seen.mark;
    client.sdk.connect();
    await client.state("connected", from);
  },

  "subscribe and unsubscribe loop": async ({ open, room }) => {
    const client = open();
    await client.connect();
    const { subscription, heard } = client.subscription(room);
    for (let round = 0; round < 10; round += 1) {
      subscription.subscribe();
      subscription.unsubscribe();
    }
    assert.equal(subscription.state, SubscriptionState.Unsubscribed);
    await heard.first("the end", (item) => item.state === "unsubscribed");
    subscription.subscribe();
    const among = (clients) => async () => {
      const { numClients, numUsers } = await client.sdk.presenceStats(room);
      const present = Object.keys((await client.sdk.presence(room)).clients).length;
      return [numClients, numUsers, present].every((count) => count === clients);
    };
    await subscription.ready(DEADLINE_MS);
    await eventually("one client to be there", among(1), Boolean);
    subscription.unsubscribe();
    await eventually("nobody to be there", among(0), Boolean);
  },

  "unsubscribe right after connect": async ({ open, room }) => {
    const client = open();
    await client.connect();
    const { subscription, heard } = client.subscription(room);
    subscription.subscribe();
    client.sdk.disconnect();
    client.sdk.connect();
    subscription.unsubscribe();
    assert.equal(subscription.state, SubscriptionState.Unsubscribed);
    await heard.first("the end", (item) => item.state === "unsubscribed");
    subscription.subscribe();
    await heard.first("the subscription", (item) => item.state === "subscribed");
  },

  "unsubscribe in between connect command and reply": async ({ open, room }) => {
    const client = open();
    const { subscription, heard } = client.subscription(room);
    client.sdk.once("__centrifuge_debug:connect_frame_sent", () => subscription.unsubscribe());
    subscription.subscribe();
    client.sdk.connect();
    await client.state("connected");
    // The answer to a later command: what was sent before is done.
    await assert.rejects(client.sdk.rpc("method", client.encoded({})), { code: 108 });
    assert.equal(subscription.state, SubscriptionState.Unsubscribed);
    subscription.subscribe();
    await heard.first("the subscription", (item) => item.state === "subscribed");
  },

  "reconnect after close before transport open": async ({ open }) => {
    const network = new EventTarget();
    const client = open({ networkEventTarget: network });
    client.sdk.once("__centrifuge_debug:transport_initialized", () => network.dispatchEvent(new Event("offline")));
    await client.connect();
    client.close();
    await client.state("disconnected");
  },

  "connects and subscribes with token": async ({ open, room }) => {
    for (let round = 0; round < 5; round += 1) {
      const asked = { connection: 0, subscription: 0 };
      const slowly = async (what, claims) => {
        await new Promise((go) => setTimeout(go, Math.random() * 50));
        asked[what] += 1;
        return token(undefined, { expires: null, ...claims });
      };
      const client = open({ getToken: () => slowly("connection") });
      client.sdk.connect();
      const { subscription, heard } = await client.subscribe(room, { getToken: () => slowly("subscription", { channel: room }) });
      assert.equal(client.sdk.state, State.Connected);
      subscription.unsubscribe();
      client.close();
      await heard.first("the end", (item) => item.state === "unsubscribed");
      assert.equal(client.sdk.state, State.Disconnected);
      assert.deepEqual(asked, { connection: 1, subscription: 1 });
    }
  },

  "subscribes and unsubscribes from many subs": async ({ open }) => {
    for (let round = 0; round < 5; round += 1) {
      const client = open();
      client.sdk.connect();
      const rooms = Array.from({ length: 5 }, () => freshRoom());
      const subscribing = rooms.map((room, at) => client.subscribe(room, {
        getToken: async () => {
          await new Promise((go) => setTimeout(go, Math.random() * 20 * at));
          return token(undefined, { expires: null, channel: room });
        },
      }));
      const subscribed = await Promise.all(subscribing);
      assert.equal(client.sdk.state, State.Connected);
      for (const { subscription } of subscribed) subscription.unsubscribe();
      client.close();
      for (const { subscription, heard } of subscribed) {
        const { code } = await heard.first("the end", (item) => item.state === "unsubscribed");
        assert.equal(code, unsubscribedCodes.unsubscribeCalled);
        assert.equal(subscription.state, SubscriptionState.Unsubscribed);
      }
      assert.equal(client.sdk.state, State.Disconnected);
    }
  },

  "retries connection getToken error": async ({ open }) => {
    const tokens = failingOnce(() => token(undefined, { expires: null }));
    const client = open({ getToken: tokens.get, minReconnectDelay: 1 });
    await client.connect();
    assert.equal(tokens.asked, 2);
  },

  "retries connection getData error": async ({ open, way }) => {
    const data = failingOnce(() => encoded(way.encoding, {}));
    const client = open({ getData: data.get, minReconnectDelay: 1 });
    await client.connect();
    assert.equal(data.asked, 2);
  },

  "retries subscription getToken error": async ({ open, room }) => {
    const tokens = failingOnce(() => token(undefined, { expires: null, channel: room }));
    const client = open({ getToken: () => token(undefined, { expires: null }) });
    client.sdk.connect();
    const { heard } = await client.subscribe(room, { getToken: tokens.get, minResubscribeDelay: 1 });
    assert.equal(tokens.asked, 2);
    assert.ok(heard.all.some((item) => item.type === "subscribeToken"));
  },

  "retries subscription getData error": async ({ open, way, room }) => {
    const data = failingOnce(() => encoded(way.encoding, {}));
    const client = open();
    client.sdk.connect();
    await client.subscribe(room, {
      getToken: () => token(undefined, { expires: null, channel: room }), getData: data.get, minResubscribeDelay: 1,
    });
    assert.equal(data.asked, 2);
  },

  "disconnected with unauthorized": async ({ open, way }) => {
    const client = open({ getToken: async () => { throw unauthorized(way); } });
    client.sdk.connect();
    assert.equal((await client.state("disconnected")).code, disconnectedCodes.unauthorized);
    assert.equal(client.sdk.state, State.Disconnected);
  },

  "unsubscribed with unauthorized": async ({ open, way, room }) => {
    const client = open();
    const { subscription, heard } = client.subscription(room, { getToken: async () => { throw unauthorized(way); } });
    client.sdk.connect();
    subscription.subscribe();
    await client.state("connected");
    const { code } = await heard.first("the end", (item) => item.state === "unsubscribed");
    assert.equal(code, unsubscribedCodes.unauthorized);
    assert.equal(subscription.state, SubscriptionState.Unsubscribed);
    assert.equal(client.sdk.state, State.Connected);
    client.close();
    assert.equal((await client.state("disconnected")).code, disconnectedCodes.disconnectCalled);
  },
};

/** What the SDK refuses before it asks a server. */
const BY_ITSELF = {
  "invalid endpoint": () => assert.throws(() => new Centrifuge("")),

  "no websocket constructor": () => {
    const { WebSocket } = globalThis;
    delete globalThis.WebSocket;
    try {
      const client = new Centrifuge(`ws://${NODES.a}/connection/websocket`);
      assert.throws(() => client.connect(), /WebSocket constructor not found/);
    } finally {
      if (WebSocket) globalThis.WebSocket = WebSocket;
    }
  },
};

/** What happens while a WebSocket opens has no like over the others. */
const WEBSOCKET_ONLY = ["unsubscribe in between connect command and reply", "reconnect after close before transport open"];

describe(`centrifuge for JavaScript, rooms in ${place.broker}`, { concurrency: true }, () => {
  for (const [name, run] of Object.entries(BY_ITSELF)) test(name, run);
  for (const way of WAYS) {
    describe(`${way.transport}, ${way.encoding}`, { concurrency: 2 }, () => {
      for (const [name, run] of Object.entries(CASES)) {
        if (WEBSOCKET_ONLY.includes(name) && way.transport !== "websocket") continue;
        test(name, async (t) => {
          const open = (options) => {
            const client = clientOver(way, place, options);
            t.after(() => client.close());
            return client;
          };
          await run({ open, place, way, room: freshRoom() });
        });
      }
    });
  }
});
