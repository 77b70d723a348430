// Watch one run as a test wants it, and print what happens: a JSON array a line.
//   node watch.mjs CLIENT URL RUN OPTIONS
// OPTIONS are those of watch(), and: ws, the directory of a WebSocket class; pauseMs, before every attempt; hurry,
// how many times faster clocks go once there were hurryFrom events, 1 if not given; hold, after so many events wait for a line on stdin; leave and abort, after how
// many events to leave the loop (and begin another) and to abort it; aborted: "start", or "pause" in the first one.
import { once } from "node:events";
import { createRequire } from "node:module";

const print = (...what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const [client, url, runId, text] = process.argv.slice(2);
const { ws, pauseMs = 0, hurry, hurryFrom = 1, hold, leave, abort, aborted, ...options } = JSON.parse(text);
const { watch } = await import(client);

function hurried() {
  const { setTimeout, setInterval } = globalThis;
  const [now, began] = [Date.now, Date.now()];
  globalThis.setTimeout = (react, ms, ...rest) => setTimeout(react, ms / hurry, ...rest);
  globalThis.setInterval = (react, ms, ...rest) => setInterval(react, ms / hurry, ...rest);
  Date.now = () => began + (now() - began) * hurry;
}

let bytes = 0;
const fetchIt = globalThis.fetch;
globalThis.fetch = async (...request) => {
  const response = await fetchIt(...request);
  const count = (chunk, out) => out.enqueue(chunk, (bytes += chunk.length));
  const body = response.body?.pipeThrough(new TransformStream({ transform: count }, { highWaterMark: 1 }));
  return body ? new Response(body, response) : response;
};

if (ws) {
  const WebSocket = createRequire(import.meta.url)(ws);
  options.WebSocket = class extends WebSocket {
    constructor(address, protocols) {
      super(address, protocols);
      print("socket", address);
      this.addEventListener("close", () => print("closed"));
    }
  };
}
const abortion = new AbortController();
if (aborted === "start") abortion.abort();
options.signal = abortion.signal;
options.backoff = pauseMs === null ? undefined : () => pauseMs;
options.onPause = (pause) => {
  print("pause", pause);
  if (aborted === "pause") setTimeout(() => abortion.abort());
};

if (hurryFrom === 0) hurried();

const run = watch(url, runId, options);
try {
  for (let rounds = 0; !run.end && rounds < 2; rounds += 1) {
    for await (const event of run) {
      if (JSON.stringify(event) !== JSON.stringify(JSON.parse(event.raw))) throw new Error("raw is another event");
      print("event", event.raw);
      if (run.received === hurryFrom && hurry) hurried();
      if (run.received === hold) {
        await once(process.stdin, "data");
        print("bytes", bytes);
      }
      if (run.received === abort) abortion.abort();
      if (run.received === leave) break;
    }
  }
  print("end", run.end);
} catch (error) {
  const { name, message, code, status, cause } = error;
  print("error", { name, message, code, status, cause: cause?.message, after: run.after });
}
process.stdin.unref?.();
