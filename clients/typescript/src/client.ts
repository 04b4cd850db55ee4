/** The HTTP client: a thin layer over fetch, with retries and typed answers. */
import { EddylineError, EventsRejected, InvalidInput, RequestRejected, Unavailable, UnexpectedAnswer } from "./errors.js";
import { Backoff, DEFAULT_RETRIES, RETRIED_STATUS, retryAfterMs, type RetryPolicy } from "./retries.js";
import type * as types from "./types.js";

/** Events in one request: the limit of the server. */
export const MAX_EVENTS = 1000;
/** Bytes in one request with events: below the server's default limit (1 MiB). */
export const MAX_BODY_BYTES = 1_000_000;
const LOG_UNAVAILABLE = "log_unavailable";

export interface ClientOptions {
  apiKey?: string;
  /** Milliseconds that one attempt may take. */
  timeoutMs?: number;
  retries?: Partial<RetryPolicy>;
}

/** A request without its server: `path` is percent-encoded. */
interface Call {
  method: "GET" | "PUT" | "PATCH" | "POST" | "DELETE";
  path: string;
  query?: string;
  body?: string;
}

/** Calls Eddyline's HTTP API. Every call is repeated while the server cannot be reached or is busy; to repeat is safe. */
export class EddylineClient {
  private readonly baseUrl: string;
  private readonly timeoutMs: number;
  private readonly retries: RetryPolicy;
  private readonly headers: Record<string, string>;

  /** `baseUrl` may have a path prefix. Throws InvalidInput. */
  constructor(baseUrl: string, options: ClientOptions = {}) {
    if (!/^https?:\/\/[^/?#]+[^?#]*$/.test(baseUrl) || !URL.canParse(baseUrl)) {
      throw new InvalidInput("baseUrl must be http(s)://host[:port][/prefix], without query or fragment");
    }
    this.baseUrl = baseUrl.replace(/\/+$/, "");
    this.timeoutMs = options.timeoutMs ?? 10_000;
    this.retries = { ...DEFAULT_RETRIES, ...options.retries };
    this.headers = { accept: "application/json", ...(options.apiKey === undefined ? {} : { "x-api-key": options.apiKey }) };
  }

  /** Recommendations for a user; `use_case` names a configured use case. An unknown user gets popular items. */
  recommend(userId: string, options: types.PersonalOptions = {}): Promise<types.Recommendations> {
    return this.perform({ method: "GET", path: `/api/recommendations/${segment(userId)}`, query: queryOf(options) });
  }

  /** What a user would get beside what each engine alone would answer, also for another history; stores nothing. */
  preview(userId: string, options: types.PreviewOptions = {}): Promise<types.Preview> {
    return this.perform({ method: "GET", path: `/api/preview/${segment(userId)}`, query: queryOf(options) });
  }

  /** Why an item is shown to a user, or why not. */
  explain(userId: string, itemId: string, options: types.ExplainOptions = {}): Promise<types.Explanation> {
    return this.perform({ method: "GET", path: `/api/explain/${segment(userId)}/${segment(itemId)}`, query: queryOf(options) });
  }

  /** Items with interactions of the same users, or with similar content. */
  similarItems(itemId: string, options: types.ItemOptions = {}): Promise<types.ItemList> {
    return this.perform({ method: "GET", path: `/api/items/${segment(itemId)}/similar`, query: queryOf(options) });
  }

  /** Users with similar interactions; `cause` says why there are none. */
  similarUsers(userId: string, options: types.SimilarUserOptions = {}): Promise<types.SimilarUsers> {
    return this.perform({ method: "GET", path: `/api/users/${segment(userId)}/similar`, query: queryOf(options) });
  }

  /** Popular items, of all time or of the last hour, day or week. */
  popular(options: types.PopularOptions = {}): Promise<types.ItemList> {
    return this.perform({ method: "GET", path: "/api/popular", query: queryOf(options) });
  }

  /** The stored state of a user. */
  user(userId: string, options: types.UserOptions = {}): Promise<types.UserAnswer> {
    return this.perform({ method: "GET", path: `/api/users/${segment(userId)}`, query: queryOf(options) });
  }

  /** The catalogue entry of an item. */
  item(itemId: string, options: types.UserOptions = {}): Promise<types.ItemAnswer> {
    return this.perform({ method: "GET", path: `/api/items/${segment(itemId)}`, query: queryOf(options) });
  }

  /** A page of the catalogue; go on with the `cursor` of each page until it is null. */
  items(options: types.PageOptions = {}): Promise<types.ItemPage> {
    return this.perform({ method: "GET", path: "/api/items", query: queryOf(options) });
  }

  /** Create or replace up to 1,000 items; the results say which were accepted. */
  upsertItems(items: readonly types.Item[]): Promise<types.EntryResults> {
    return this.perform({ method: "POST", path: "/api/items", body: JSON.stringify(items) });
  }

  /** Change some fields of an item: null removes one, all others stay. `{available: false}` hides the item. */
  patchItem(itemId: string, changes: types.ItemChange): Promise<types.Accepted> {
    return this.perform({ method: "PATCH", path: `/api/items/${segment(itemId)}`, body: JSON.stringify(changes) });
  }

  /** Create or replace an item. */
  upsertItem(item: types.Item): Promise<types.Accepted> {
    return this.perform({ method: "PUT", path: `/api/items/${segment(item.item_id)}`, body: JSON.stringify(item) });
  }

  /** Remove an item from every answer; an unknown id is accepted too. */
  deleteItem(itemId: string): Promise<types.Accepted> {
    return this.perform({ method: "DELETE", path: `/api/items/${segment(itemId)}` });
  }

  /** Create or replace what up to 1,000 users declare; the results say which were accepted. */
  upsertUsers(users: readonly types.User[]): Promise<types.EntryResults> {
    return this.perform({ method: "POST", path: "/api/users", body: JSON.stringify(users) });
  }

  /** Change some fields of what a user declares: null removes one, all others stay. */
  patchUser(userId: string, changes: types.UserChange): Promise<types.Accepted> {
    return this.perform({ method: "PATCH", path: `/api/users/${segment(userId)}`, body: JSON.stringify(changes) });
  }

  /** Create or replace what a user declares. */
  upsertUser(user: types.User): Promise<types.Accepted> {
    return this.perform({ method: "PUT", path: `/api/users/${segment(user.user_id)}`, body: JSON.stringify(user) });
  }

  /** Delete a user and all their interactions so far; an unknown id is accepted too. */
  deleteUser(userId: string): Promise<types.Accepted> {
    return this.perform({ method: "DELETE", path: `/api/users/${segment(userId)}` });
  }

  /**
   * Publish events, in requests of at most 1,000; resolves once the log has every one.
   *
   * Throws EventsRejected when some break the contract and all others were accepted; Unavailable or
   * RequestRejected when it stops before the end. The `results` of the error have the tokens of the accepted events.
   */
  async sendEvents(events: types.Event | Iterable<types.Event>): Promise<types.EventResults> {
    const results: types.EventResult[] = [];
    try {
      for (const batch of batches(isIterable(events) ? events : [events])) await this.publish(batch, results);
    } catch (error) {
      if (error instanceof EddylineError) error.results = summary(results);
      throw error;
    }
    const all = summary(results);
    const first = results.find((result) => result.token == null);
    if (first) {
      const place = `number ${first.index}, event_id ${JSON.stringify(first.event_id)}: ${first.error}: ${first.detail}`;
      throw new EventsRejected(`${all.rejected} of ${results.length} events were rejected; the first is ${place}`, all);
    }
    return all;
  }

  /** Sends the events of one request, and again those that the broker has not acknowledged. Appends to `results`, also when it throws. */
  private async publish(batch: readonly string[], results: types.EventResult[]): Promise<void> {
    const first = results.length;
    const backoff = new Backoff(this.retries);
    const outcome: types.EventResult[] = batch.map((_, place) => ({ index: first + place, error: "not_sent" }));
    let pending = batch.map((_, place) => place);
    try {
      while (pending.length) {
        const body = `[${pending.map((place) => batch[place]).join(",")}]`;
        const answer = await this.perform<types.EventResults>({ method: "POST", path: "/api/events", body }, backoff);
        if (answer.results.length !== pending.length) {
          throw new UnexpectedAnswer(`${answer.results.length} results for ${pending.length} events`);
        }
        answer.results.forEach((result, at) => {
          const place = pending[at]!;
          outcome[place] = { ...result, index: first + place };
        });
        pending = pending.filter((place) => outcome[place]?.error === LOG_UNAVAILABLE);
        if (pending.length && !(await backoff.wait())) {
          throw new Unavailable(`${pending.length} events were not acknowledged: ${outcome[pending[0]!]?.detail}`);
        }
      }
    } finally {
      results.push(...outcome);
    }
  }

  private async perform<Answer>(call: Call, backoff = new Backoff(this.retries)): Promise<Answer> {
    const what = `${call.method} ${this.baseUrl}${call.path}`;
    for (;;) {
      let cause: string;
      let serverWaitMs = 0;
      try {
        const response = await this.fetch(call);
        const text = await response.text();
        if (!RETRIED_STATUS.has(response.status)) return read<Answer>(`${call.method} ${call.path}`, response.status, text);
        serverWaitMs = retryAfterMs(response.headers.get("retry-after"));
        cause = `status ${response.status}: ${text.slice(0, 200)}`;
      } catch (error) {
        if (error instanceof EddylineError) throw error;
        cause = String(error instanceof Error && error.cause ? error.cause : error);
      }
      if (!(await backoff.wait(serverWaitMs))) {
        throw new Unavailable(`${what} failed after ${backoff.attempts} attempts; the last one: ${cause}`);
      }
    }
  }

  private fetch(call: Call): Promise<Response> {
    const url = `${this.baseUrl}${call.path}${call.query ? `?${call.query}` : ""}`;
    return fetch(url, {
      method: call.method,
      headers: call.body === undefined ? this.headers : { ...this.headers, "content-type": "application/json" },
      body: call.body ?? null,
      redirect: "manual",
      signal: AbortSignal.timeout(this.timeoutMs),
    });
  }
}

/** The typed answer. Throws RequestRejected, UnexpectedAnswer. */
function read<Answer>(what: string, status: number, text: string): Answer {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    body = undefined;
  }
  if (typeof body === "object" && body !== null) {
    // 422 with results: none of the events is valid, and the body has the error of each.
    if ((status >= 200 && status < 300) || (status === 422 && "results" in body)) return body as Answer;
    if ("error" in body && "detail" in body) {
      throw new RequestRejected(status, String(body.error), `${what} answered ${status}: ${body.error}: ${body.detail}`);
    }
  }
  throw new UnexpectedAnswer(`${what} answered ${status}: not an answer of Eddyline: is baseUrl right? The body begins ${text.slice(0, 100)}`);
}

/** An id as one part of a path. `.` and `..` cannot be one in a URL: fetch resolves them even when they are encoded. */
function segment(id: string): string {
  if (id === "" || id === "." || id === "..") throw new InvalidInput(`the id ${JSON.stringify(id)} cannot be part of a path`);
  try {
    return encodeURIComponent(id);
  } catch {
    throw new InvalidInput("the id contains a lone surrogate");
  }
}

function queryOf(options: object): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(options) as [string, unknown][]) {
    if (name === "attr" && value != null) {
      for (const [attribute, condition] of Object.entries(value)) append(query, `attr.${attribute}`, condition);
    } else if (value != null) append(query, name, value);
  }
  return query.toString();
}

function append(query: URLSearchParams, name: string, value: unknown): void {
  for (const text of Array.isArray(value) ? value : [value]) query.append(name, String(text));
}

function isIterable(events: types.Event | Iterable<types.Event>): events is Iterable<types.Event> {
  return Symbol.iterator in events;
}

/** Encoded events in groups that fit into one request, in order. */
function* batches(events: Iterable<types.Event>): Generator<string[]> {
  let batch: string[] = [];
  let size = 0;
  for (const event of events) {
    const text = JSON.stringify({ event_id: crypto.randomUUID(), timestamp: Date.now() / 1000, ...event });
    const bytes = new TextEncoder().encode(text).length + 1;
    if (batch.length && (batch.length === MAX_EVENTS || size + bytes > MAX_BODY_BYTES)) {
      yield batch;
      batch = [];
      size = 0;
    }
    batch.push(text);
    size += bytes;
  }
  if (batch.length) yield batch;
}

function summary(results: types.EventResult[]): types.EventResults {
  const accepted = results.filter((result) => result.token != null).length;
  return { accepted, rejected: results.length - accepted, results };
}
