// The browser's own WebSocket, without the page: the example of docs/CLIENTS.md as it stands there.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { exampleOf } from "../interop/examples.mjs";
import { eventually, Gateway, launch, openPage, startRedis } from "./support.mjs";

let browser;
let node;
before(async () => {
  node = await Gateway.started("websocket-node", { ROOMCAST_CLIENT_PING_INTERVAL: "2s", ROOMCAST_CLIENT_PONG_TIMEOUT: "1s" });
  browser = await launch();
});
after(() => Promise.all([browser?.close(), node?.stop()]));

/** The token that the node gives its own page in development mode. */
async function developmentToken() {
  const page = await (await fetch(node.url)).text();
  return JSON.parse(page.match(/<script type="application\/json" id="config">(.*?)<\/script>/s)[1]).token;
}

/** Opens a page and runs the example in it, as a visitor of some site would. */
async function runExample(code) {
  const page = await openPage(browser, { bypassCSP: true });
  const printed = [];
  page.on("console", async (message) => {
    printed.push(await Promise.all(message.args().map((value) => value.jsonValue())));
  });
  await page.goto(node.url);
  await page.addScriptTag({ content: code });
  const isPrinted = (text) => printed.some(([word, , data]) => word === "heard" && data.text === text);
  return { page, printed, hears: (text) => eventually(`"${text}" to be heard`, () => isPrinted(text)) };
}

test("two pages with the example on /ws hear each other, and outlive pings", async () => {
  const token = await developmentToken();
  const code = exampleOf("browser").replace("paste the token here", token).replaceAll("127.0.0.1:8000", node.address);
  const first = await runExample(code);
  await first.hears("hello from browser");
  const second = await runExample(code);
  await second.hears("hello from browser");

  // The playground's own clients are pinged in the open: three of their pings are a clock.
  await first.page.locator("#frames-pings").check();
  await first.page.locator('.frame.in.ping[data-pane="A"]').nth(2).waitFor({ timeout: 15_000 });

  await second.page.evaluate('send({ id: 9, publish: { channel: "lobby", data: { text: "still here" } } })');
  await first.hears("still here");
  for (const { page, printed } of [first, second]) {
    assert.deepEqual(printed.filter(([word]) => word === "closed"), []);
    assert.deepEqual(page.faults, []);
  }
});

/** Opens a plain WebSocket in the page, connects with the token and enters the lobby; says whether that succeeded. */
function enter(page, address, token) {
  return page.evaluate(([address, token]) => new Promise((entered) => {
    const socket = new WebSocket(`ws://${address}/ws`);
    const say = (command) => socket.send(JSON.stringify(command));
    Object.assign(window, { heard: [], left: false, ended: null, say });
    socket.onopen = () => {
      say({ id: 1, connect: { token } });
      say({ id: 2, subscribe: { channel: "lobby" } });
    };
    socket.onclose = ({ code }) => {
      window.ended = code;
      entered(false);
    };
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.id === 2) entered(Boolean(message.subscribe));
      if (message.id === 3) window.left = true;
      if (message.push?.pub) window.heard.push(message.push.pub.data);
    };
  }), [address, token]);
}

test("plain sockets on two nodes hear each other, leave, and come back after a stop", async (t) => {
  const redis = await startRedis();
  t.after(() => redis.stop());
  const secret = { ROOMCAST_AUTH_HMAC_SECRET: "browser-secret-of-more-than-32-bytes-length" };
  const settings = {
    ...secret,
    ROOMCAST_REDIS_URL: redis.url,
    ROOMCAST_PLAYGROUND: "true",
    ROOMCAST_ALLOWED_ORIGINS: "*",
    ROOMCAST_ROOMS_ALLOW_SUBSCRIBE_FOR_CLIENT: "true",
    ROOMCAST_ROOMS_ALLOW_PUBLISH_FOR_SUBSCRIBER: "true",
  };
  const one = await Gateway.started("one", settings);
  t.after(() => one.stop());
  const two = await Gateway.started("two", settings);
  t.after(() => two.stop());
  const { PATH, HOME } = process.env;
  const made = await promisify(execFile)(process.env.ROOMCAST_BIN, ["token", "--user", "ann"], { env: { PATH, HOME, ...secret } });
  const token = made.stdout.trim();
  const [a, b] = [await openPage(browser), await openPage(browser)];
  for (const page of [a, b]) await page.goto(one.url);
  assert.ok((await enter(a, one.address, token)) && (await enter(b, two.address, token)));
  const say = (page, data) =>
    page.evaluate((data) => window.say({ id: 9, publish: { channel: "lobby", data } }), data);
  const hears = (page, data) => page.waitForFunction((data) => window.heard.includes(data), data);
  await say(a, "across");
  await hears(b, "across");
  await two.stop();
  await b.waitForFunction(() => window.ended === 3001);
  assert.ok(await enter(b, one.address, token));
  await say(a, "again");
  await hears(b, "again");
  await b.evaluate(() => window.say({ id: 3, unsubscribe: { channel: "lobby" } }));
  await b.waitForFunction(() => window.left);
  await say(a, "unheard");
  await hears(a, "unheard");
  assert.ok(!(await b.evaluate(() => window.heard)).includes("unheard"));
});
