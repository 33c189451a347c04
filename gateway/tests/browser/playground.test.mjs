// The page at `/`: what a person does there, at two widths, light and dark.
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Gateway, launch, openPage } from "./support.mjs";

const KEPT = 500;
const SECRET = "browser-secret-of-more-than-32-bytes-length";

let browser;
before(async () => { browser = await launch(); });
after(() => browser.close());

/** What a person can do and see in one of the two panes. */
function paneOf(page, letter) {
  const root = page.locator(`.pane[data-pane="${letter}"]`);
  return {
    root,
    state: (state) => root.locator(`.state[data-state="${state}"]`).waitFor(),
    say: async (text) => {
      await root.locator(".compose textarea").fill(text);
      await root.locator(".compose textarea").press("Enter");
    },
    hears: (text) => root.locator(".said .text").getByText(text, { exact: true }).waitFor(),
    join: async (room) => {
      await root.locator(".join .field").fill(room);
      await root.locator(".join .field").press("Enter");
    },
    inRoom: (room) => root.locator(".room.joined.current").getByText(room, { exact: true }).waitFor(),
  };
}

async function bothConnected(page) {
  const panes = ["A", "B"].map((letter) => paneOf(page, letter));
  for (const pane of panes) {
    await pane.state("connected");
    await pane.inRoom("lobby");
  }
  return panes;
}

const shot = (page, name) => page.screenshot({ path: join(process.env.ARTIFACTS, `${name}.png`), fullPage: true });

async function assertNoOverflow(page) {
  const [content, width] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(content <= width, `the page is ${content} px wide in a window of ${width}`);
}

describe("playground", () => {
  let node;
  before(async () => { node = await Gateway.started("browser-node"); });
  after(() => node.stop());

  for (const [width, height] of [[1280, 800], [390, 844]]) {
    for (const colorScheme of ["light", "dark"]) {
      test(`two clients talk, ${width} px, ${colorScheme}`, async () => {
        const page = await openPage(browser, { viewport: { width, height }, colorScheme });
        await page.goto(node.url);
        const [a, b] = await bothConnected(page);
        for (const pane of [a, b]) assert.equal(await pane.root.locator(".node").textContent(), "browser-node");

        await a.say("Hello from A");
        await b.hears("Hello from A");
        await b.say("Hello from B");
        await a.hears("Hello from B");
        for (const pane of [a, b]) assert.match(await pane.root.locator(".rtt").textContent(), /^[\d.]+ m?s$/);
        await a.say(`A long word: ${"x".repeat(300)}`);
        await b.hears(`A long word: ${"x".repeat(300)}`);
        await assertNoOverflow(page);

        // A second room is heard only by those in it.
        await b.join("standup");
        await b.inRoom("standup");
        await b.root.locator(".room .open").first().click();
        await b.inRoom("lobby");

        await b.root.locator(".drop").click();
        await b.state("waiting");
        await b.state("connected");
        await b.root.locator(".room.joined").nth(1).waitFor();
        await b.root.locator(".chat .event", { hasText: "Back after" }).waitFor();
        await a.say("Are you back?");
        await b.hears("Are you back?");

        // A request that is refused is told with its code.
        await a.join("x".repeat(300));
        const notice = a.root.locator(".notice");
        await notice.locator("code").getByText("107").waitFor();
        await assertNoOverflow(page);
        await shot(page, `playground-${width}-${colorScheme}`);
        assert.deepEqual(page.faults, []);
        await page.context().close();
      });
    }
  }

  test("what is said is text, never markup", async () => {
    const page = await openPage(browser);
    await page.goto(node.url);
    const [a, b] = await bothConnected(page);
    const attack = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>";
    await a.say(attack);
    await b.hears(attack);
    await page.locator(".frame.in", { hasText: "push pub" }).first().locator("summary").click();
    await page.locator(".frame[open] pre").waitFor();
    assert.equal(await page.locator("#panes img, #panes script").count(), 0);
    assert.equal(await page.title(), "Roomcast playground");
    assert.deepEqual(page.faults, []);
    await page.context().close();
  });

  test("the log of frames is readable, can be held and cleared, and stays bounded", async () => {
    const page = await openPage(browser);
    await page.goto(node.url);
    const [a, b] = await bothConnected(page);
    await a.say("one");
    await b.hears("one");
    const published = page.locator('.frame.out[data-pane="A"]', { hasText: "publish" }).first();
    await published.locator("summary").click();
    const shown = JSON.parse(await published.locator("pre").textContent());
    assert.equal(shown.publish.data.text, "one");
    assert.match(await published.locator("time").textContent(), /^\d\d:\d\d:\d\d\.\d{3}$/);
    const greeting = page.locator('.frame.out[data-pane="A"]', { hasText: "connect" }).first();
    await greeting.locator("summary").click();
    assert.match(JSON.parse(await greeting.locator("pre").textContent()).connect.token, /characters\)$/);

    await page.locator("#frames-pause").click();
    const before = await page.locator(".frame").count();
    await a.say("two");
    await b.hears("two");
    await page.getByRole("button", { name: /Resume \(\d+\)/ }).waitFor();
    assert.equal(await page.locator(".frame").count(), before);
    await page.locator("#frames-pause").click();
    await page.locator(".frame.in", { hasText: "two" }).first().waitFor();
    await page.locator("#frames-clear").click();
    assert.equal(await page.locator(".frame").count(), 0);

    await a.root.locator(".compose").evaluate((form) => {
      for (let n = 1; n <= 170; n += 1) {
        form.querySelector("textarea").value = `burst ${n}`;
        form.requestSubmit();
      }
    });
    await b.hears("burst 170");
    await a.hears("burst 170");
    await page.waitForFunction((kept) => document.querySelectorAll(".frame").length === kept, KEPT);
    assert.deepEqual(page.faults, []);
    await page.context().close();
  });

  test("everything is reached by keyboard and has a name", async () => {
    const page = await openPage(browser);
    await page.goto(node.url);
    await bothConnected(page);
    const nameless = await page.evaluate(() => [...document.querySelectorAll("button, input, textarea, [tabindex], section")]
      .filter((item) => !(item.getAttribute("aria-label") || item.getAttribute("aria-labelledby") || item.labels?.length || item.textContent.trim()))
      .map((item) => item.outerHTML));
    assert.deepEqual(nameless, []);
    await page.locator('.pane[data-pane="A"] .compose textarea').focus();
    await page.keyboard.type("typed");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await paneOf(page, "B").hears("typed");
    await page.context().close();
  });
});

describe("playground and its node", () => {
  test("both clients come back when the node was restarted", async (t) => {
    // A secret of its own, so that tokens outlive the node; the page is then asked for, and gets no token.
    const node = await Gateway.started("restarted-node", {
      config: fileURLToPath(new URL("../interop/rooms.toml", import.meta.url)),
      ROOMCAST_AUTH_HMAC_SECRET: SECRET, ROOMCAST_PLAYGROUND: "true",
    });
    t.after(() => node.stop());
    const page = await openPage(browser);
    await page.goto(node.url);
    const a = paneOf(page, "A");
    await a.state("disconnected");
    await a.root.locator(".token").fill("not a token");
    await a.root.getByRole("button", { name: "Connect with these" }).click();
    await a.root.locator(".notice code").getByText("3500").waitFor();
    await a.state("refused");
    await shot(page, "playground-refused");

    await a.root.locator(".token").fill(await signedBy(SECRET));
    for (const letter of ["A", "B"]) {
      await page.locator(`.pane[data-pane="${letter}"]`).getByRole("button", { name: "Connect with these" }).click();
    }
    const [, b] = await bothConnected(page);
    await node.stop();
    await a.state("waiting");
    await b.state("waiting");
    await node.start();
    await bothConnected(page);
    await a.say("after the restart");
    await b.hears("after the restart");
    await page.context().close();
  });
});

/** A token as any issuer would make it, by the platform's own means. */
async function signedBy(secret) {
  const part = (value) => Buffer.from(value).toString("base64url");
  const key = await crypto.subtle.importKey("raw", Buffer.from(secret), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const claims = { sub: "alice", exp: Math.floor(Date.now() / 1000) + 600 };
  const signed = `${part(JSON.stringify({ alg: "HS256", typ: "JWT" }))}.${part(JSON.stringify(claims))}`;
  return `${signed}.${part(await crypto.subtle.sign("HMAC", key, Buffer.from(signed)))}`;
}
