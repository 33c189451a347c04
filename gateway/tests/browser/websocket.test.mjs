// The browser's own WebSocket, without the page: the example of docs/CLIENTS.md as it stands there.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { exampleOf } from "../interop/examples.mjs";
import { eventually, Gateway, launch, openPage } from "./support.mjs";

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
