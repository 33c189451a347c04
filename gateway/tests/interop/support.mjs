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
const SECRET = process.env.INTEROP_SECRET;
export const DEADLINE_MS = 10_000;

/** `expires` is seconds from now; `secret` other than the nodes' own makes a token they refuse; `channels` are rooms to be in. */
export function token(user, { expires = 3600, secret = SECRET, channels } = {}) {
  return new SignJWT({ channels })
    .setProtectedHeader({ alg: "HS256", typ: "JWT" })
    .setSubject(user)
    .setExpirationTime(Math.floor(Date.now() / 1000) + expires)
    .sign(new TextEncoder().encode(secret));
}

/** A room that no other test uses. */
export const freshRoom = () => `interop-${randomUUID()}`;

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
      websocket: Socket, minReconnectDelay: 100, maxReconnectDelay: 300, ...options,
    });
    this.sdk.on("connected", ({ client }) => seen.add({ state: "connected", client }));
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

  /** Resolves once the server took the subscription. */
  async subscribe(room) {
    const heard = new Happenings();
    const subscription = this.sdk.newSubscription(room);
    subscription.on("publication", ({ data, info }) => heard.add({ data: this.#decoded(data), user: info?.user }));
    subscription.on("subscribed", () => heard.add({ state: "subscribed" }));
    subscription.on("unsubscribed", ({ code, reason }) => heard.add({ state: "unsubscribed", code, reason }));
    subscription.subscribe();
    await subscription.ready(DEADLINE_MS);
    return { subscription, heard };
  }

  publish(room, data) {
    return this.sdk.publish(room, this.encoding === "protobuf" ? Buffer.from(JSON.stringify(data)) : data);
  }

  #decoded(data) {
    return this.encoding === "protobuf" ? JSON.parse(Buffer.from(data).toString()) : data;
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
