// Reads the examples out of docs/CLIENTS.md: a marker, then the block of code after it.
import { readFileSync } from "node:fs";

const page = readFileSync(new URL("../../../docs/CLIENTS.md", import.meta.url), "utf8");

export function exampleOf(name) {
  const marker = `<!-- example: ${name} -->`;
  const [, after] = page.split(marker);
  const code = after?.match(/^\s*```\w*\n([\s\S]*?)^```$/m)?.[1];
  if (!code) throw new Error(`docs/CLIENTS.md has no block of code after ${marker}`);
  return code;
}
