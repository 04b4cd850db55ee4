/**
 * Asks the API. A key that somebody types in is kept in this module's memory only: it is gone with
 * the page, and no other site or later visitor can read it.
 */

import { confirmed, element, field } from "./elements.js";

/**
 * An answer that is no success: `status`, `word` (stable) and `message` (a sentence).
 * `retryAfter`: seconds after which the same request may succeed; 0: it is not known to.
 */
export class HttpError extends Error {
  constructor(status, word, detail, retryAfter = 0) {
    super(detail);
    this.status = status;
    this.word = word;
    this.retryAfter = retryAfter;
  }
}

/** What a request needs a key for, and the setting that has such keys. */
const NEEDS = {
  read: { setting: "API_READ_KEYS", sentence: "This server answers only with a key." },
  write: { setting: "API_KEYS", sentence: "Writing needs a key." },
  admin: { setting: "API_ADMIN_KEYS", sentence: "The live model and dead letters need an admin's key." },
};
const KEYLESS = new Set(["admin_disabled", "writes_disabled"]);
const keys = { read: "", write: "", admin: "" };
const asking = {};

function needOf(method, path) {
  if (path.startsWith("api/dead-letters")) return "admin";
  if (method === "GET") return "read";
  return path.startsWith("api/models") ? "admin" : "write";
}

function keyFor(need) {
  return need === "read" ? keys.read || keys.write || keys.admin : keys[need];
}

/** Ask for a key; resolves to whether one was typed in. Two requests share one dialog. */
function askForKey(need, refusal) {
  asking[need] ??= (async () => {
    const { setting, sentence } = NEEDS[need];
    const input = field("Key", {
      id: "key",
      type: "password",
      autocomplete: "off",
      required: true,
      autofocus: true,
      "aria-describedby": "key-note",
    });
    const note = element(
      "p",
      { id: "key-note", class: "note" },
      `It is one of the server's ${setting}. It stays in the memory of this page and is gone when you close it.`,
    );
    const wrong = keyFor(need) ? element("p", { class: "message bad" }, refusal) : null;
    const typed = await confirmed(sentence, [wrong, input, note].filter(Boolean), "Use this key");
    if (typed) keys[need] = typed.get("key").trim();
    return typed !== null;
  })().finally(() => delete asking[need]);
  return asking[need];
}

/** The absolute address of a path of the API ("api/models"), whatever prefix the page has. */
export function urlOf(path) {
  return new URL(path, document.baseURI).href;
}

async function errorOf(response) {
  const retryAfter = response.status === 503 ? Number(response.headers.get("retry-after")) : 0;
  try {
    const { error, detail } = await response.json();
    return new HttpError(response.status, error, detail, retryAfter);
  } catch {
    return new HttpError(response.status, "", `the server answered with status ${response.status}`);
  }
}

/**
 * One request; resolves to the successful response. Asks for a key where one is missing or wrong,
 * and sends the request again. Rejects with HttpError, or AbortError when `signal` is aborted.
 */
export async function request(method, path, { body, accept = "application/json", signal } = {}) {
  const need = needOf(method, path);
  for (;;) {
    const key = keyFor(need);
    const headers = { accept };
    if (key) headers["x-api-key"] = key;
    if (body !== undefined) headers["content-type"] = "application/json";
    let response;
    try {
      response = await fetch(urlOf(path), {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
        cache: "no-store",
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new HttpError(0, "unreachable", "The server does not answer.");
    }
    if (response.ok) return response;
    const error = await errorOf(response);
    const wantsKey = (error.status === 401 || error.status === 403) && !KEYLESS.has(error.word);
    if (!wantsKey) throw error;
    if (key === keyFor(need) && !(await askForKey(need, error.message))) throw error;
    signal?.throwIfAborted();
  }
}

const MOST_READS = 3;

/**
 * The JSON of a read. `path` as "api/models"; `query`: its parameters, null ones left out. A server
 * that answers 503 and says when to ask again (Retry-After, in seconds) is asked again, twice.
 */
export async function get(path, { query = {}, signal } = {}) {
  const entries = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(entries).toString();
  for (let reads = 1; ; reads += 1) {
    try {
      return await (await request("GET", text ? `${path}?${text}` : path, { signal })).json();
    } catch (error) {
      if (!error.retryAfter || reads === MOST_READS) throw error;
      await new Promise((resolve) => setTimeout(resolve, 1000 * error.retryAfter));
      signal?.throwIfAborted();
    }
  }
}

/** The JSON answer to a write (POST, PUT, PATCH, DELETE). */
export async function send(method, path, body, { signal } = {}) {
  return (await request(method, path, { body, signal })).json();
}

/** The command line that asks the same. */
export function curl(method, path, body) {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const parts = ["curl"];
  if (method !== "GET") parts.push("-X", method);
  if (keyFor(needOf(method, path))) parts.push("-H", quoted("x-api-key: $KEY").replaceAll("'", '"'));
  if (body !== undefined) parts.push("-H", quoted("content-type: application/json"), "-d", quoted(JSON.stringify(body)));
  return [...parts, quoted(urlOf(path))].join(" ");
}

const LEAST_PAUSE_MS = 1000;
const MOST_PAUSE_MS = 10_000;

/** Resolves when the page is seen, at once if it is. */
function seen(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", resolve, { once: true, signal });
    signal.addEventListener("abort", resolve, { once: true });
  });
}

/**
 * Calls `onMessage` with the JSON of each server-sent event, until `signal` is aborted; connects
 * again after a pause. A page that nobody sees listens to nothing. `onState`: called with "" when
 * connected, and with the cause when not. (EventSource cannot send a key.)
 */
export async function listen(path, { onMessage, onState, signal }) {
  let pause = LEAST_PAUSE_MS;
  while (!signal.aborted) {
    const hidden = new AbortController();
    const either = AbortSignal.any([signal, hidden.signal]);
    document.addEventListener("visibilitychange", () => document.hidden && hidden.abort(), { signal: either });
    try {
      const response = await request("GET", path, { accept: "text/event-stream", signal: either });
      onState("");
      pause = LEAST_PAUSE_MS;
      await readEvents(response.body, onMessage);
      onState("The server has ended the connection.");
    } catch (error) {
      if (signal.aborted) return;
      if (hidden.signal.aborted) {
        await seen(signal);
        continue;
      }
      onState(error.message);
      if (error.status === 401 || error.status === 403) return;
    }
    hidden.abort(); // ends its listener
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(2 * pause, MOST_PAUSE_MS);
  }
}

async function readEvents(stream, onMessage) {
  let text = "";
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data: "));
      if (data.length) onMessage(JSON.parse(data.map((line) => line.slice(6)).join("\n")));
    }
  }
}
