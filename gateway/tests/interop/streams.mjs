// Clients over plain HTTP: the official SDK on the streams it falls back to, and clients that only listen.
import { createServer, request as httpRequest } from "node:http";
import { EventSource } from "eventsource";
import WebSocket from "ws";
import { Happenings, NODES, SdkClient, token } from "./support.mjs";

/** What the SDK can speak without a WebSocket. Server-sent events are text, so there is no Protobuf. */
export const STREAMS = [
  { transport: "sse", encoding: "json" },
  { transport: "http_stream", encoding: "json" },
  { transport: "http_stream", encoding: "protobuf" },
];

/** All that the SDK can speak. */
export const WAYS = [{ transport: "websocket", encoding: "json" }, { transport: "websocket", encoding: "protobuf" }, ...STREAMS];

/** An empty command: `{}` in JSON; in Protobuf the third field of the request, one zero byte long. */
function isPong(body) {
  if (typeof body === "string") return JSON.parse(body).data === "{}";
  return Buffer.from(body).subarray(-3).equals(Buffer.from([0x1a, 1, 0]));
}

/**
 * The SDK on a stream of `node`; `down` and `up` are the addresses of the stream and of the commands, if they are not
 * the node's own. `seen` has `{ sent, status }` for each command.
 */
export class StreamClient extends SdkClient {
  #answersPings;
  #command;

  constructor({ transport, encoding }, node, { up = NODES[node], down = NODES[node], answersPings = true, ...options }) {
    super(encoding, node, {
      endpoint: [{ transport, endpoint: `http://${down}/connection/${transport}` }],
      emulationEndpoint: `http://${up}/emulation`,
      fetch: (url, request) => (String(url).endsWith("/emulation") ? this.#send(url, request) : fetch(url, request)),
      readableStream: ReadableStream,
      eventsource: EventSource,
      ...options,
    });
    this.#answersPings = answersPings;
  }

  static async connected(way, node, user = "alice", options = {}) {
    const client = new StreamClient(way, node, { token: await token(user), ...options });
    // One that nobody holds would try for ever, and keep the process alive.
    await client.connect().catch((error) => { client.close(); throw error; });
    return client;
  }

  async #send(url, request) {
    const sent = isPong(request.body) ? "pong" : "command";
    if (sent === "pong" && !this.#answersPings) return Response.error();
    // As browsers do where a kept connection was closed at the moment of writing, it is tried once more.
    // The SDK does not look at the answer, and a rejection that nobody takes would end the process.
    const answer = fetch(url, request).catch(() => fetch(url, request)).catch(() => Response.error());
    if (sent === "command") this.#command = answer;
    const response = await answer;
    this.seen.add({ sent, status: response.status });
    return response;
  }

  /** The status of the answer to the command that `act` sends. Requests side by side have no order, so await it before the next. */
  async sending(act) {
    this.#command = undefined;
    act();
    // The SDK calls `fetch` before `act` returns. A reply on the stream may overtake the answers, so `seen` does not tell.
    return (await this.#command).status;
  }
}

/** A client of the SDK at the first node of a place, whose commands the second one takes where that is possible. */
export function clientOver(way, { first, second }, options = {}) {
  if (way.transport === "websocket") return new SdkClient(way.encoding, first, options);
  return new StreamClient(way, first, { up: NODES[second], ...options });
}

/** A balancer without sticky sessions: each request goes to the node that did not get the one before. */
export async function roundRobin(t) {
  const requests = [];
  const server = createServer((request, response) => {
    const node = ["a", "b"][requests.length % 2];
    requests.push({ node, path: request.url.split("?")[0] });
    const [host, port] = NODES[node].split(":");
    const { method, url: path, headers } = request;
    const onward = httpRequest({ host, port, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers).flushHeaders();
      answer.pipe(response);
      answer.on("error", () => response.destroy());
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  t.after(() => { server.closeAllConnections(); server.close(); });
  return { address: `127.0.0.1:${server.address().port}`, requests };
}

/** Everything behind each `separator` of a streamed answer, as it comes. */
async function* pieces(body, separator) {
  let rest = "";
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const whole = (rest + text).split(separator);
    rest = whole.pop();
    yield* whole;
  }
  if (rest !== "") throw new Error(`the stream ended within ${JSON.stringify(rest)}`);
}

/**
 * A client without a library that only listens. `seen` has every push as it came; first `{ opened }`, the type of the
 * answer; last `{ ended }`, which over a WebSocket is the close code.
 */
export class Listener {
  static WAYS = ["uni_sse", "uni_sse in EventSource", "uni_http_stream", "uni_websocket", "uni_websocket with cf_connect"];
  seen = new Happenings();
  #abort = new AbortController();

  constructor(way, node, request, { answersPings = true } = {}) {
    const [name] = way.split(" ");
    const address = `${NODES[node]}/connection/${name}`;
    const query = `?cf_connect=${encodeURIComponent(JSON.stringify(request))}`;
    const open = {
      "uni_sse": () => this.#stream(`http://${address}${query}`, {}, "\n\n"),
      "uni_sse in EventSource": () => this.#events(`http://${address}${query}`),
      "uni_http_stream": () => this.#stream(`http://${address}`, { method: "POST", body: JSON.stringify(request) }, "\n"),
      "uni_websocket": () => this.#socket(`ws://${address}`, answersPings, JSON.stringify(request)),
      "uni_websocket with cf_connect": () => this.#socket(`ws://${address}${query}`, answersPings),
    };
    open[way]();
  }

  async #stream(url, request, separator) {
    try {
      const answer = await fetch(url, { ...request, signal: this.#abort.signal });
      this.seen.add({ opened: answer.headers.get("content-type"), status: answer.status });
      for await (const piece of pieces(answer.body, separator)) {
        const text = separator === "\n" ? piece : piece.replace(/^[\r\n]*(data: )?/, "");
        if (text !== "") this.seen.add(JSON.parse(text));
      }
      this.seen.add({ ended: true });
    } catch (error) {
      if (!this.#abort.signal.aborted) this.seen.add({ failed: String(error) });
    }
  }

  #events(url) {
    const events = new EventSource(url);
    this.#abort.signal.addEventListener("abort", () => events.close());
    events.onopen = () => this.seen.add({ opened: "text/event-stream", status: 200 });
    events.onmessage = ({ data }) => this.seen.add(JSON.parse(data));
    events.onerror = ({ code }) => { events.close(); this.seen.add(code ? { failed: code } : { ended: true }); };
  }

  #socket(url, autoPong, first) {
    const socket = new WebSocket(url, { autoPong });
    this.#abort.signal.addEventListener("abort", () => socket.terminate());
    socket.on("open", () => { if (first) socket.send(first); });
    socket.on("message", (bytes) => this.seen.add(JSON.parse(bytes.toString())));
    socket.on("close", (code) => this.seen.add({ ended: code }));
    socket.on("error", (error) => this.seen.add({ failed: error.message }));
  }

  hears(room, matches, from = 0) {
    return this.seen.first(`publication in ${room}`, ({ channel, pub }) => channel === room && pub && matches(pub.data), from);
  }

  /** The code it was told, which over a WebSocket the close frame has to repeat. */
  async code() {
    const { disconnect } = await this.seen.first("the disconnect", (item) => item.disconnect);
    const { ended } = await this.seen.first("the end", (item) => item.ended);
    return ended === true || ended === disconnect.code ? disconnect.code : { disconnect, ended };
  }

  close() {
    this.#abort.abort();
  }
}
