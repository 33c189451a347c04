// What every suite in JavaScript needs: tokens, waiting, and the clients under test.
import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Centrifuge } from "centrifuge";
import { Centrifuge as ProtobufCentrifuge } from "centrifuge/build/protobuf";
import { SignJWT } from "jose";
import WebSocket from "ws";

export const NODES = { a: process.env.INTEROP_A, b: process.env.INTEROP_B };
const INTERNAL = { a: process.env.INTEROP_A_INTERNAL, b: process.env.INTEROP_B_INTERNAL };
const SECRET = process.env.INTEROP_SECRET;
export const DEADLINE_MS = 30_000;

/** Where rooms live. What the first node does is looked for at the second; with rooms in memory there is but one. */
export const PLACE = process.env.INTEROP_REDIS_URL
  ? { broker: "Redis, at two nodes", first: "a", second: "b" }
  : { broker: "memory", first: "a", second: "a" };

/**
 * `expires` is seconds from now, `null` for never; `secret` other than the nodes' own makes a token they refuse; without
 * a `user` it is nobody's; `claims` are for instance `channels`, rooms to be in, or `channel`, the room to be let in.
 */
export function token(user, { expires = 3600, secret = SECRET, ...claims } = {}) {
  const jwt = new SignJWT(claims).setProtectedHeader({ alg: "HS256", typ: "JWT" });
  if (user !== undefined) jwt.setSubject(user);
  if (expires !== null) jwt.setExpirationTime(Math.floor(Date.now() / 1000) + expires);
  return jwt.sign(new TextEncoder().encode(secret));
}

/** Calls the server API of a node. Rejects with the error of the answer, if it is one. */
export async function api(node, method, request) {
  const answer = await fetch(`http://${INTERNAL[node]}/api/${method}`, {
    method: "POST",
    // No connection is kept: one that was idle may be closed at the moment when it is written to.
    headers: { "X-API-Key": process.env.INTEROP_API_KEY, Connection: "close" },
    body: JSON.stringify(request),
  });
  if (!answer.ok) throw new Error(`${method} was answered ${answer.status}: ${await answer.text()}`);
  const { error, result } = await answer.json();
  if (error) throw Object.assign(new Error(`${method}: ${error.message}`), error);
  return result;
}

/** Asks again until the answer is as it has to become. */
export async function eventually(what, ask, holds) {
  const end = Date.now() + DEADLINE_MS;
  for (;;) {
    const answer = await ask();
    if (holds(answer)) return answer;
    if (Date.now() > end) throw new Error(`waited for ${what}; last: ${JSON.stringify(answer)}`);
    await new Promise((again) => setTimeout(again, 20));
  }
}

/** A room that no other test uses. */
export const freshRoom = (namespace) => `${namespace ? `${namespace}:` : ""}interop-${randomUUID()}`;

/** Runs cluster.sh while the clients of this process go on reading. */
export function cluster(...words) {
  return promisify(execFile)(fileURLToPath(new URL("cluster.sh", import.meta.url)), words);
}

/** Things that happened, in order, and a way to await one of them, past or to come. */
export class Happenings {
  #all = [];
  #waiters = new Set();

  add(item) {
    this.#all.push(item);
    for (const waiter of this.#waiters) waiter(item);
  }

  get all() {
    return [...this.#all];
  }

  /** Where what comes from now on begins. */
  get mark() {
    return this.#all.length;
  }

  /** The first `count` that match, once there are as many. */
  async several(what, count, matches, from = 0) {
    const found = () => this.#all.slice(from).filter(matches);
    await this.first(`${count} of ${what}`, () => found().length >= count, from);
    return found().slice(0, count);
  }

  async first(what, matches, from = 0) {
    const found = this.#all.slice(from).find(matches);
    if (found !== undefined) return found;
    let waiter;
    let timer;
    try {
      return await new Promise((resolve, reject) => {
        waiter = (item) => { if (matches(item)) resolve(item); };
        this.#waiters.add(waiter);
        timer = setTimeout(() => reject(new Error(`waited for ${what}; seen: ${JSON.stringify(this.#all)}`)), DEADLINE_MS);
      });
    } finally {
      clearTimeout(timer);
      this.#waiters.delete(waiter);
    }
  }
}

const JSON_PING = Buffer.from("{}");
const PROTOBUF_PING = Buffer.from([0]);

/** `ws`, counting the server's pings: an empty message in JSON, one zero byte in Protobuf. */
class PingCountingSocket extends WebSocket {
  static onPing = () => {};

  constructor(...args) {
    super(...args);
    this.on("message", (data) => {
      // The SDK asks for an ArrayBuffer where it reads Protobuf.
      const bytes = Buffer.from(data);
      if (bytes.equals(JSON_PING) || bytes.equals(PROTOBUF_PING)) this.constructor.onPing();
    });
  }
}

/** JSON as the SDK takes it. */
export const encoded = (encoding, data) => (encoding === "protobuf" ? Buffer.from(JSON.stringify(data)) : data);

/** One client of the official SDK. What it meets is kept in `seen`. Without an `endpoint` it uses WebSocket. */
export class SdkClient {
  constructor(encoding, node, { endpoint = `ws://${NODES[node]}/connection/websocket`, ...options }) {
    const seen = new Happenings();
    const Socket = class extends PingCountingSocket {
      static onPing = () => seen.add({ ping: true });
    };
    const Sdk = encoding === "protobuf" ? ProtobufCentrifuge : Centrifuge;
    this.seen = seen;
    this.encoding = encoding;
    this.sdk = new Sdk(endpoint, {
      websocket: Socket, timeout: DEADLINE_MS, minReconnectDelay: 100, maxReconnectDelay: 300, ...options,
    });
    this.sdk.on("connected", ({ client, data }) => seen.add({ state: "connected", client, data }));
    this.sdk.on("connecting", ({ code, reason }) => seen.add({ state: "connecting", code, reason }));
    this.sdk.on("disconnected", ({ code, reason }) => seen.add({ state: "disconnected", code, reason }));
    this.sdk.on("error", ({ error }) => seen.add({ error: error.code, message: error.message }));
  }

  static async connected(encoding, node, user = "alice") {
    const client = new SdkClient(encoding, node, { token: await token(user) });
    await client.connect();
    return client;
  }

  async connect() {
    this.sdk.connect();
    await this.state("connected");
  }

  state(state, from = 0) {
    return this.seen.first(state, (item) => item.state === state, from);
  }

  /** A subscription that is not asked for yet, and what it meets. */
  subscription(room, options) {
    const heard = new Happenings();
    const subscription = this.sdk.newSubscription(room, options);
    subscription.on("publication", (publication) => heard.add(this.#told(publication)));
    subscription.on("subscribing", ({ code, reason }) => heard.add({ state: "subscribing", code, reason }));
    subscription.on("subscribed", (context) => heard.add({ state: "subscribed", ...this.#granted(context) }));
    subscription.on("unsubscribed", ({ code, reason }) => heard.add({ state: "unsubscribed", code, reason }));
    subscription.on("join", ({ info }) => heard.add({ joined: this.identity(info) }));
    subscription.on("leave", ({ info }) => heard.add({ left: this.identity(info) }));
    subscription.on("error", ({ type, error }) => heard.add({ error: error.code, message: error.message, type }));
    return { subscription, heard };
  }

  /** Resolves once the server took the subscription. */
  async subscribe(room, options) {
    const made = this.subscription(room, options);
    made.subscription.subscribe();
    await made.subscription.ready(DEADLINE_MS);
    return made;
  }

  /** What the client meets in rooms that the server puts it into. */
  serverSide() {
    const heard = new Happenings();
    for (const state of ["subscribing", "subscribed", "unsubscribed"]) {
      this.sdk.on(state, ({ channel, ...context }) => heard.add({ channel, state, ...this.#granted(context) }));
    }
    this.sdk.on("publication", ({ channel, ...publication }) => heard.add({ channel, ...this.#told(publication) }));
    this.sdk.on("join", ({ channel, info }) => heard.add({ channel, joined: this.identity(info) }));
    this.sdk.on("leave", ({ channel, info }) => heard.add({ channel, left: this.identity(info) }));
    return heard;
  }

  publish(room, data) {
    return this.sdk.publish(room, this.encoded(data));
  }

  encoded(data) {
    return encoded(this.encoding, data);
  }

  decoded(data) {
    return this.encoding === "protobuf" ? JSON.parse(Buffer.from(data).toString()) : data;
  }

  /** Who somebody is; `connInfo` and `chanInfo` only where there are any. */
  identity({ client, user, connInfo, chanInfo }) {
    const some = (name, info) => (info === undefined || info.length === 0 ? {} : { [name]: this.decoded(info) });
    return { client, user, ...some("connInfo", connInfo), ...some("chanInfo", chanInfo) };
  }

  #told({ data, info, offset, tags }) {
    const kept = offset ? { offset } : {};
    const labelled = tags && Object.keys(tags).length > 0 ? { tags: { ...tags } } : {};
    return { data: this.decoded(data), user: info?.user, ...kept, ...labelled };
  }

  #granted({ wasRecovering, recovered, streamPosition, data }) {
    return { wasRecovering, recovered, position: streamPosition, ...(data?.length === 0 ? {} : { given: data && this.decoded(data) }) };
  }

  close() {
    this.sdk.disconnect();
  }
}

/** A plain WebSocket client that speaks the protocol in JSON without an SDK. */
export class PlainClient {
  #id = 0;

  constructor(node, path = "/ws", { answersPings = true } = {}) {
    this.seen = new Happenings();
    this.socket = new WebSocket(`ws://${NODES[node]}${path}`);
    this.socket.on("open", () => this.seen.add({ open: true }));
    this.socket.on("ping", () => this.seen.add({ nativePing: true }));
    this.socket.on("close", (code, reason) => this.seen.add({ closed: code, reason: reason.toString() }));
    this.socket.on("error", (error) => this.seen.add({ failed: error.message }));
    this.socket.on("message", (bytes) => {
      const message = JSON.parse(bytes.toString());
      this.seen.add(message);
      if (Object.keys(message).length === 0 && answersPings) this.socket.send("{}");
    });
  }

  static async connected(node, path, user = "alice", options = {}) {
    const client = new PlainClient(node, path, options);
    await client.seen.first("open", (item) => item.open);
    const reply = await client.ask("connect", { token: await token(user) });
    return Object.assign(client, { greeting: reply.connect });
  }

  ask(method, request) {
    const id = ++this.#id;
    this.socket.send(JSON.stringify({ id, [method]: request }));
    return this.seen.first(`reply to ${method}`, (item) => item.id === id);
  }

  hears(room, matches, from = 0) {
    return this.seen.first(`publication in ${room}`, ({ push }) => push?.channel === room && push.pub && matches(push.pub.data), from);
  }

  close() {
    this.socket.close();
  }
}
