// The examples of docs/CLIENTS.md, run as they stand there; only the address is put in.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { exampleOf } from "./examples.mjs";
import { Happenings, NODES, PlainClient, token } from "./support.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const python = join(here, ".venv/bin/python");

describe("README.md", () => {
  for (const name of ["browser", "node-ws", "python-websockets", "centrifuge-js", "centrifuge-python"]) {
    test(`${name} stands there as in docs/CLIENTS.md`, () => {
      assert.equal(exampleOf(name, "README.md"), exampleOf(name));
    });
  }
});

describe("docs/CLIENTS.md", { concurrency: true }, () => {
  for (const [name, command, extension] of [
    ["node-ws", "node", "mjs"],
    ["centrifuge-js", "node", "mjs"],
    ["python-websockets", python, "py"],
    ["centrifuge-python", python, "py"],
  ]) {
    test(name, async (t) => {
      const listener = await PlainClient.connected("b", "/ws", "bob");
      t.after(() => listener.close());
      await listener.ask("subscribe", { channel: "lobby" });

      // Inside this folder, so that the imports of the example are found.
      const folder = mkdtempSync(join(here, ".example-"));
      const file = join(folder, `example.${extension}`);
      writeFileSync(file, exampleOf(name).replaceAll("127.0.0.1:8000", NODES.a));
      const child = spawn(command, [file], { env: { ...process.env, PYTHONUNBUFFERED: "1", TOKEN: await token("alice") } });
      t.after(() => { child.kill(); rmSync(folder, { recursive: true }); });
      const printed = new Happenings();
      for (const stream of [child.stdout, child.stderr]) {
        createInterface({ input: stream }).on("line", (line) => printed.add(line));
      }

      await listener.hears("lobby", (data) => data.text === `hello from ${name}`);
      await listener.ask("publish", { channel: "lobby", data: { text: `welcome, ${name}` } });
      const line = await printed.first("the answer", (text) => text.includes(`welcome, ${name}`));
      assert.match(line, /^heard bob/);
      assert.equal(child.exitCode, null, "the example goes on listening");
    });
  }
});
