// Reads the examples out of docs/CLIENTS.md, or another page: a marker, then the block of code after it.
import { readFileSync } from "node:fs";

const ROOT = new URL("../../../", import.meta.url);

export function exampleOf(name, page = "docs/CLIENTS.md") {
  const marker = `<!-- example: ${name} -->`;
  const [, after] = readFileSync(new URL(page, ROOT), "utf8").split(marker);
  const code = after?.match(/^\s*```\w*\n([\s\S]*?)^```$/m)?.[1];
  if (!code) throw new Error(`${page} has no block of code after ${marker}`);
  return code;
}
