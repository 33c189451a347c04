// A node in development mode and a browser, both ended with the test.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { openSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { chromium } from "playwright-core";

const DEADLINE_MS = 20_000;

const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

/** Asks again and again until the condition holds. */
export async function eventually(what, condition) {
  const end = Date.now() + DEADLINE_MS;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited ${DEADLINE_MS / 1000} s for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
}

/** Ports that were free a moment ago, all different. */
async function freePorts(count) {
  const servers = Array.from({ length: count }, () => net.createServer().listen(0, "127.0.0.1"));
  await Promise.all(servers.map((server) => once(server, "listening")));
  const ports = servers.map((server) => server.address().port);
  for (const server of servers) server.close();
  return ports;
}

/** A Redis of its own. */
export async function startRedis() {
  const [port] = await freePorts(1);
  const arguments_ = ["--bind", "127.0.0.1", "--port", `${port}`, "--save", "", "--appendonly", "no"];
  const child = spawn("redis-server", arguments_, { stdio: "ignore" });
  return {
    url: `redis://127.0.0.1:${port}`,
    async stop() {
      const ended = once(child, "exit");
      child.kill();
      await ended;
    },
  };
}

/** A running node. Without a secret among its settings it is in development mode. */
export class Gateway {
  #settings;
  #child;

  constructor(name, listen, internal, { config, ...settings }) {
    this.address = listen;
    this.url = `http://${listen}/`;
    this.ready = `http://${internal}/readyz`;
    this.log = join(process.env.NODE_LOGS, `${name}.log`);
    this.args = config ? ["--config", config] : [];
    this.#settings = {
      ROOMCAST_NODE_NAME: name, ROOMCAST_LISTEN: listen, ROOMCAST_INTERNAL_LISTEN: internal,
      ROOMCAST_SHUTDOWN_DELAY: "0s", ROOMCAST_SHUTDOWN_DRAIN: "1s", ...settings,
    };
  }

  /** `config` names a settings file; all else is environment. */
  static async started(name, settings = {}) {
    const [listen, internal] = (await freePorts(2)).map((port) => `127.0.0.1:${port}`);
    const gateway = new Gateway(name, listen, internal, settings);
    await gateway.start();
    return gateway;
  }

  async start() {
    const { PATH, HOME } = process.env;
    const log = openSync(this.log, "a");
    this.#child = spawn(process.env.ROOMCAST_BIN, this.args, { env: { PATH, HOME, ...this.#settings }, stdio: ["ignore", log, log] });
    await eventually("the node to be ready", async () => {
      if (this.#ended) throw new Error(`the node ended at start; it wrote ${this.log}`);
      return fetch(this.ready).then((answer) => answer.ok, () => false);
    });
  }

  get #ended() {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  async stop() {
    if (this.#ended) return;
    const ended = once(this.#child, "exit");
    this.#child.kill("SIGTERM");
    await ended;
  }
}

export function launch() {
  return chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
}

/** A page that collects what went wrong in it. */
export async function openPage(browser, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  page.faults = [];
  page.on("console", (message) => { if (message.type() === "error" || message.type() === "warning") page.faults.push(message.text()); });
  page.on("pageerror", (error) => page.faults.push(String(error)));
  page.on("requestfailed", (request) => page.faults.push(`${request.url()} ${request.failure().errorText}`));
  return page;
}
