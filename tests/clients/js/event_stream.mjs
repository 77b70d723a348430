// Parse every text of a JSON list (base64, stdin) cut in every way in two and in three, byte by byte, and whole.
// Prints for each the events it holds; throws if the cuts make a difference.  node event_stream.mjs CLIENT
import { deepStrictEqual } from "node:assert";
import { readFileSync } from "node:fs";

const { eventStream } = await import(process.argv[2]);

function parsed(bytes, ...cuts) {
  const parse = eventStream();
  const edges = [0, ...cuts, bytes.length];
  return edges.slice(1).flatMap((edge, n) => parse(bytes.subarray(edges[n], edge)));
}

for (const text of JSON.parse(readFileSync(0))) {
  const bytes = new Uint8Array(Buffer.from(text, "base64"));
  const whole = parsed(bytes);
  const all = [...bytes.keys()];
  deepStrictEqual(parsed(bytes, ...all), whole);
  for (const first of all) {
    deepStrictEqual(parsed(bytes, first), whole);
    for (const second of all.slice(first)) deepStrictEqual(parsed(bytes, first, second), whole);
  }
  console.log(JSON.stringify(whole));
}
