/**
 * Watch a run of Tailrace: each event once, in order, to its proven end, over as many connections as that takes.
 * One ES module without dependencies, for browsers and Node 20 or newer. It comes back by itself behind the last
 * event that it gave out, and throws rather than leave a gap. Uses the public API only.
 *
 *     const run = watch("http://localhost:8080", "RUN_ID");
 *     for await (const event of run) console.log(event.seq, event.type, event.payload);
 *     console.log(run.end);  // { status: "success", lastSeq: 10, received: 10, hash: "…" }
 */

const PAUSE_FIRST_MS = 500;
const PAUSE_MAX_MS = 20_000;
const RETRIES = 10; // connections in a row that brought nothing new; with the pauses about two minutes
const OPEN_TIMEOUT_MS = 10_000;
const WAIT_MAX_MS = 300_000; // the service's own limit of `wait`
const UNOPENED_MAX = 2; // WebSockets in a row that did not open: something in between blocks upgrades
const EVENT_CHARS_MAX = 1024 * 1024; // an event is smaller: the service's log takes 768 KiB at once

// A dead network says nothing. Over SSE the service speaks every 15 s; the pings of a WebSocket cannot be seen from
// here, so one that is silent is replaced: that costs a request.
const SILENCE_SSE_MS = 50_000;
const SILENCE_WEBSOCKET_MS = 150_000;

// A WebSocket cannot be told to wait. So much is kept; then it is closed, until all that was given out.
const QUEUED_CHARS_MAX = 4 * 1024 * 1024;

// Close codes to come back on; any other says stop. 1000 is here because the run's end is known before: without
// it, it is the politeness of something in between, as are 1001, 1005 and 1014.
const COME_BACK_CODES = new Set([1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014, 4408, 4429]);
const COME_BACK_STATUSES = new Set([408, 429, 500, 502, 503, 504]);

/**
 * An event as it was recorded; `raw` is the exact text (not enumerable: JSON.parse rounds numbers over 2^53).
 * @typedef {{runId: string, type: string, payload: Record<string, any>, seq: number, timestamp: string,
 *   raw: string}} RunEvent
 *
 * How a run ended: so many step events it has, so many events were given out, the head of its SHA-256 chain.
 * @typedef {{status: "success" | "failed" | "cancelled", lastSeq: number, received: number, hash: string}} End
 *
 * @typedef {object} Options
 * @property {number | string} [after] Begin behind this seq; "tail": only what is new; -5: with the last five.
 * @property {string | string[]} [types] Event types; "all" adds the run's header and seal.
 * @property {string} [stepId] Only events of this step.
 * @property {"debug" | "info" | "warn" | "error"} [level] Messages of this level at least.
 * @property {number | string} [wait] How long the run may take to exist: ms, or a text such as "30s".
 * @property {string} [key] The key, or token, that the service asks for. A page of its own needs none, once logged in.
 * @property {AbortSignal} [signal] Ends it: the loop throws the signal's reason.
 * @property {"auto" | "websocket" | "sse"} [transport] auto: a WebSocket if there is one, SSE if it will not open;
 *   "sse" replays a large run many times faster in Chromium, but takes one of the page's few connections.
 * @property {any} [WebSocket] The class to use where the platform has none.
 * @property {number} [retries] Connections in a row that may bring nothing new: 10 if not given; Infinity is fine.
 * @property {(attempt: number) => number} [backoff] ms before attempt 1, 2, …; a longer Retry-After wins.
 * @property {(pause: {reason: string, transport: string, attempt: number, pauseMs: number}) => void} [onPause] Called
 *   before each pause: why the connection is gone, and when there is another.
 */

/** The service said no; coming back does not help. `code` is the close code, 4000 + `status` where it was HTTP. */
export class Refused extends Error {
  name = "Refused";

  /** @param {number} code @param {string} reason */
  constructor(code, reason) {
    super(reason || `closed with ${code}`);
    this.code = code;
    this.status = code >= 4400 && code < 4600 ? code - 4000 : undefined;
  }
}

/** What arrived are not the run's events without a gap: something between here and there lies. */
export class Broken extends Error {
  name = "Broken";
}

/** No connection brought anything new, `retries` times in a row; `cause` is the last. Another loop goes on. */
export class Unreachable extends Error {
  name = "Unreachable";
}

/** The connection is gone, and another may bring what comes next. */
class Lost extends Error {
  // unopened: it never stood. full: we closed it, with QUEUED_CHARS_MAX kept. waitMs: Retry-After.
  constructor(reason, { unopened = false, full = false, waitMs = 0 } = {}) {
    super(reason);
    Object.assign(this, { unopened, full, waitMs });
  }
}

/**
 * Return the events of a run for `for await`: those that were, then those that come, to its end.
 * `url` is the service's address; a path in front of the API is kept. The loop ends when the run has ended and
 * every event was given out, which is checked; then `end` says how. It throws Refused, Broken, Unreachable and
 * the reason of `signal`. Leaving it closes the connection; another loop over the same object goes on behind the
 * last event. However slowly you read, memory is bounded.
 *
 * @param {string | URL} url @param {string} runId @param {Options} [options]
 */
export function watch(url, runId, options = {}) {
  return new Watch(url, runId, options);
}

class Watch {
  /** @type {End | undefined} How the run ended, once the loop has. */
  end;
  /** How many events were given out. */
  received = 0;
  /** @type {number | string | undefined} Behind which it goes on: a seq, once the service has said which "tail" is. */
  after;

  #address;
  #options;
  #runId;
  #first; // the seq of the first event there is; 0 is the run's header
  #filtered; // then the events' seqs have gaps
  #progress = false;
  #unopened = 0;

  constructor(url, runId, options) {
    const base = new URL(url, globalThis.location?.href);
    if (!/^https?:$/.test(base.protocol)) throw new TypeError(`${url} is not an address such as http://localhost:8080`);
    if (!/^[\w-]{1,128}$/.test(runId)) throw new TypeError(`${JSON.stringify(runId)} is not the id of a run`);
    const { after, stepId, level, wait, transport, WebSocket = globalThis.WebSocket } = options;
    if (transport === "websocket" && !WebSocket) throw new TypeError("there is no WebSocket here; pass a class");
    const types = [options.types ?? []].flat().join(",") || undefined;
    for (const [name, value] of Object.entries({ types, stepId, level, wait, control: 1 })) {
      if (value !== undefined) base.searchParams.set(name, String(value));
    }
    base.pathname = `${base.pathname.replace(/\/+$/, "")}/api/v2/workflows/runs/${runId}/stream`;
    this.#address = base;
    this.#options = { ...options, WebSocket };
    this.#runId = runId;
    this.#first = types === "all" ? 0 : 1;
    this.#filtered = (types ?? "all") !== "all" || stepId !== undefined || level !== undefined;
    this.after = /^\d+$/.test(String(after)) ? Number(after) : after?.toString();
  }

  /** @returns {AsyncGenerator<RunEvent, void, void>} */
  async *[Symbol.asyncIterator]() {
    for (let attempt = 1; !this.end; attempt += 1) {
      const { transport = "auto", WebSocket, signal } = this.#options;
      const blocked = transport === "auto" && this.#unopened >= UNOPENED_MAX;
      const sse = transport === "sse" || !WebSocket || blocked;
      const began = Date.now();
      this.#progress = false;
      try {
        for await (const texts of this.#connection(sse)) {
          for (const text of texts) {
            signal?.throwIfAborted();
            const event = this.#take(text);
            if (event) yield event;
            if (this.end) return;
          }
        }
      } catch (error) {
        if (!(error instanceof Lost)) throw error;
        this.#unopened = error.unopened && !sse ? this.#unopened + 1 : 0;
        if (this.#progress || (!error.unopened && Date.now() - began > PAUSE_MAX_MS)) attempt = 1;
        if (!error.full) await this.#pause(error, attempt, sse ? "sse" : "websocket");
      }
    }
  }

  #connection(sse) {
    const { key, signal, wait, WebSocket } = this.#options;
    const waitMs = wait === undefined ? 0 : WAIT_MAX_MS;
    const address = new URL(this.#address);
    if (this.after !== undefined) address.searchParams.set("after", String(this.after));
    if (sse) return overSse(address, key, signal, OPEN_TIMEOUT_MS + waitMs);
    address.searchParams.set("errors", "close"); // a browser cannot see the status of a refusal
    return overWebSocket(address, key, WebSocket, signal, SILENCE_WEBSOCKET_MS + waitMs);
  }

  /** The seq that is next; not a number while only the service knows where "tail" is. */
  get #due() { return Math.max(Number(this.after ?? -1) + 1, this.#first); }

  /** Return the event that `text` is, undefined for a message about the stream. Throws Broken if it is not due. */
  #take(text) {
    const event = JSON.parse(text);
    if (event.seq === undefined) return this.#told(event);
    const fits = this.#filtered ? event.seq >= this.#due : event.seq === this.#due;
    if (!fits || event.runId !== this.#runId) {
      throw new Broken(`event ${event.seq} of ${event.runId} came where ${this.#due} of ${this.#runId} was due`);
    }
    this.after = event.seq;
    this.#progress = true;
    this.received += 1;
    return Object.defineProperty(event, "raw", { value: text });
  }

  #told({ type, payload }) {
    if (type === "stream.end") {
      this.#finish(payload);
    } else if (typeof this.after === "string") {
      this.after = payload.after ?? undefined; // of the hello: "tail" and -5 would be another place later
    } else if (this.#filtered && payload.seq >= this.#due) {
      this.after = payload.seq; // what is before it and was not sent does not pass the filter
      this.#progress = true;
    }
  }

  #finish({ status, lastSeq, hash }) {
    const beyond = lastSeq + (this.#first ? 1 : 2); // the seal follows the last step event
    if (!this.#filtered && (this.received ? this.#due !== beyond : this.#due < beyond)) {
      throw new Broken(`${this.#runId} ended with event ${lastSeq} where ${this.#due} was due`);
    }
    this.end = { status, lastSeq, received: this.received, hash };
  }

  async #pause(lost, attempt, transport) {
    const { signal, retries = RETRIES, backoff = pauseOf, onPause } = this.#options;
    if (attempt > retries) throw new Unreachable(`given up: ${lost.message}`, { cause: lost });
    const pauseMs = Math.max(backoff(attempt), Math.min(lost.waitMs, PAUSE_MAX_MS));
    onPause?.({ reason: lost.message, transport, attempt, pauseMs });
    await sleep(pauseMs, signal); // an abort ends it, and is thrown by the next connection
  }
}

/** Yield the texts that arrive over one WebSocket. Throws Lost, Refused and the signal's reason. */
async function* overWebSocket(address, key, WebSocket, signal, silenceMs) {
  const protocols = key ? await ticketFor(address, key, signal) : [];
  const socket = new WebSocket(address.href.replace("http", "ws"), protocols);
  let [queue, chars] = [[], 0];
  let [opened, heard] = [false, Date.now()];
  let over;
  let wake = () => {};
  const stop = (why) => ((over ??= why), wake());
  const unheed = heed(signal, () => stop(signal.reason));
  const watchdog = setInterval(() => {
    const limitMs = opened ? silenceMs : OPEN_TIMEOUT_MS;
    if (Date.now() - heard > limitMs) stop(new Lost(`nothing came for ${limitMs / 1000} s`, { unopened: !opened }));
  }, 1000);
  socket.onopen = () => ([opened, heard] = [true, Date.now()]);
  socket.onmessage = ({ data }) => {
    if (over) return;
    heard = Date.now();
    chars += data.length;
    queue.push(data);
    if (chars <= QUEUED_CHARS_MAX) return wake();
    stop(new Lost("it is read too slowly", { full: true }));
    socket.close();
  };
  socket.onclose = ({ code, reason }) => {
    const again = COME_BACK_CODES.has(code);
    stop(again ? new Lost(`closed ${code} ${reason}`.trim(), { unopened: !opened }) : new Refused(code, reason));
  };
  socket.onerror = () => {}; // a close follows; some classes throw an error that nobody listens to
  try {
    while (queue.length || !over) {
      if (!queue.length) await new Promise((resolve) => (wake = resolve));
      const texts = queue;
      [queue, chars] = [[], 0];
      if (texts.length) yield texts;
    }
    throw over;
  } finally {
    clearInterval(watchdog);
    unheed();
    socket.onmessage = socket.onclose = null;
    socket.close();
  }
}

/**
 * Yield the texts that arrive over one stream of server-sent events. Throws Lost, Refused and the signal's reason.
 * By fetch, not EventSource: it sees why it is refused, `after` is ours, and nothing is taken before it is wanted.
 */
async function* overSse(address, key, signal, openMs) {
  const request = new AbortController();
  const unheed = heed(signal, () => request.abort());
  try {
    const response = await get(address, "text/event-stream", request, openMs, { key });
    if (response.status === 204) {
      // The run is over and nothing is left to send, not even how it ended.
      const place = new URL(address.pathname.replace(/\/stream$/, ""), address);
      const run = await get(place, "application/json", request, OPEN_TIMEOUT_MS, { key });
      yield [`{"type":"stream.end","payload":${await within(run.text(), request, OPEN_TIMEOUT_MS)}}`];
      return;
    }
    const parse = eventStream();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await within(reader.read(), request, SILENCE_SSE_MS);
      if (done) throw new Lost("the connection ended before the run");
      const events = parse(value);
      const texts = events.filter(({ type }) => type === "message" || type.startsWith("stream."));
      if (texts.length) yield texts.map(({ data }) => data);
      const fault = events.find(({ type }) => type === "fault");
      if (fault) throw refusal(fault.data);
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  } finally {
    unheed();
    request.abort();
  }
}

/** Return a ticket for one stream, as subprotocols: a WebSocket cannot carry a key. Throws Lost and Refused. */
async function ticketFor(address, key, signal) {
  const request = new AbortController();
  const unheed = heed(signal, () => request.abort());
  try {
    const [, base, runId] = address.pathname.match(/^(.*)\/workflows\/runs\/(.*)\/stream$/);
    const [place, body] = [new URL(`${base}/stream-tickets`, address), JSON.stringify({ runId })];
      const response = await get(place, "application/json", request, OPEN_TIMEOUT_MS, { key, method: "POST", body });
    return JSON.parse(await within(response.text(), request, OPEN_TIMEOUT_MS)).protocols;
  } finally {
    unheed();
    signal?.throwIfAborted();
  }
}

async function get(address, accept, request, limitMs, { key, ...more }) {
  const headers = { accept, ...(key && { authorization: `Bearer ${key}` }) };
  if (more.body) headers["content-type"] = "application/json";
  const options = { headers, cache: "no-store", redirect: key ? "error" : "follow", signal: request.signal, ...more };
  const response = await within(fetch(address, options), request, limitMs, true);
  const said = response.ok ? "" : await within(response.text(), request, OPEN_TIMEOUT_MS);
  if (!response.ok) throw refusal(said, response.status, response.headers);
  if (response.status === 204 || response.headers.get("content-type")?.startsWith(accept)) return response;
  throw new Lost("it is not the service that answers", { unopened: true });
}

/** Return what `promise` brings; after `limitMs` abort `request`. Throws Lost. */
async function within(promise, request, limitMs, unopened = false) {
  let late;
  const timeout = () => request.abort((late = new Lost(`nothing came for ${limitMs / 1000} s`, { unopened })));
  const timer = setTimeout(timeout, limitMs);
  try {
    return await promise;
  } catch ({ message, cause }) {
    throw late ?? new Lost(String(cause ?? message), { unopened });
  } finally {
    clearTimeout(timer);
  }
}

/** Return what a problem document says: Refused, or Lost where coming back may help. */
function refusal(text, status, headers) {
  let problem = {}; // where something in between has spoken
  try { problem = JSON.parse(text); } catch {}
  const code = status ?? problem.status;
  const faults = (problem.errors ?? []).map((fault) => `${fault.pointer} ${fault.message}`);
  const reason = faults.join("; ") || problem.detail || `HTTP ${code}`;
  if ("seq" in problem || !COME_BACK_STATUSES.has(code)) return new Refused(4000 + code, reason); // seq: damaged
  const later = headers?.get("retry-after") ?? "0";
  const waitMs = Number(later) * 1000 || Date.parse(later) - Date.now() || 0;
  return new Lost(reason, { waitMs, unopened: status !== undefined });
}

/**
 * Return a parser of server-sent events: given more bytes, cut anywhere, it returns the events that are whole now.
 * It reads as browsers do, but for `id` and `retry`. Throws Broken over EVENT_CHARS_MAX, TypeError if not UTF-8.
 * @returns {(bytes: Uint8Array) => {type: string, data: string}[]}
 */
export function eventStream() {
  const decoder = new TextDecoder("utf-8", { fatal: true }); // it drops a byte order mark, too
  let [rest, type, data, chars] = ["", "", [], 0];
  let afterReturn = false; // then a line feed is the second half of the same line's end

  return (bytes) => {
    const text = decoder.decode(bytes, { stream: true });
    if (!text) return [];
    const lines = (rest + (afterReturn ? text.replace(/^\n/, "") : text)).split(/\r\n|\r|\n/);
    afterReturn = text.endsWith("\r");
    rest = lines.pop();
    const events = [];
    for (const line of lines) {
      if (line === "") {
        if (data.length) events.push({ type: type || "message", data: data.join("\n") });
        [type, data, chars] = ["", [], 0];
      } else if (/^data(:|$)/.test(line)) {
        data.push(line.replace(/^data:? ?/, ""));
        chars += line.length;
      } else if (/^event(:|$)/.test(line)) type = line.replace(/^event:? ?/, "");
    }
    if (chars + rest.length > EVENT_CHARS_MAX) throw new Broken(`an event of over ${EVENT_CHARS_MAX} characters`);
    return events;
  };
}

function pauseOf(attempt) {
  const longestMs = Math.min(PAUSE_MAX_MS, PAUSE_FIRST_MS * 2 ** (attempt - 1));
  return (longestMs * (1 + Math.random())) / 2; // spread, so that not everybody comes back at once
}

async function sleep(ms, signal) {
  let timer, unheed;
  await new Promise((resolve) => ([timer, unheed] = [setTimeout(resolve, ms), heed(signal, resolve)]));
  clearTimeout(timer);
  unheed();
}

/** Call `react` once `signal` is aborted, until the function that is returned is called. */
function heed(signal, react) {
  if (signal?.aborted) react();
  signal?.addEventListener("abort", react);
  return () => signal?.removeEventListener("abort", react);
}
