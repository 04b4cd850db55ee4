/** Failures, answered by a real server with scripted replies. */
import assert from "node:assert/strict";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { EddylineClient, RequestRejected, Unavailable, UnexpectedAnswer, type RetryPolicy } from "../src/index.js";

interface Reply {
  /** 0: close the connection without an answer. */
  status: number;
  body?: string;
  headers?: Record<string, string>;
}

const EMPTY = JSON.stringify({ method_used: "popular", fallbacks: [], model_version: null, degraded: false, recommendations: [] });
const OK: Reply = { status: 200, body: EMPTY };
const BUSY: Reply = { status: 503, body: '{"error":"log_unavailable","detail":"the broker is away"}' };
const QUICK: Partial<RetryPolicy> = { attempts: 4, firstWaitMs: 5, longestWaitMs: 10 };

/** Runs `use` with a client of a server that answers `replies` in order, then always the last; returns the requests. */
async function scripted(replies: Reply[], use: (client: EddylineClient) => Promise<void>): Promise<{ url: string; key: unknown; body: string }[]> {
  const requests: { url: string; key: unknown; body: string }[] = [];
  const server = createServer((request: IncomingMessage, response) => {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      const reply = replies[Math.min(requests.length, replies.length - 1)]!;
      requests.push({ url: request.url ?? "", key: request.headers["x-api-key"], body: Buffer.concat(parts).toString() });
      if (reply.status === 0) request.socket.destroy();
      else response.writeHead(reply.status, reply.headers).end(reply.body ?? "");
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address() as AddressInfo;
  try {
    await use(new EddylineClient(`http://127.0.0.1:${address.port}/shop/`, { apiKey: "k", retries: QUICK, timeoutMs: 5000 }));
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
  return requests;
}

for (const failure of [BUSY, { status: 429 }, { status: 502, body: "<html>" }, { status: 504 }, { status: 0 }]) {
  test(`a passing ${failure.status || "closed connection"} is retried and not raised`, async () => {
    const requests = await scripted([failure, failure, OK], async (client) => {
      assert.equal((await client.popular({ limit: 3 })).method_used, "popular");
    });
    assert.deepEqual(requests.map((request) => request.url), Array(3).fill("/shop/api/popular?limit=3"));
    assert.equal(requests[0]?.key, "k");
  });
}

test("a permanent failure raises one error with the last cause", async () => {
  const requests = await scripted([BUSY], async (client) => {
    await assert.rejects(client.popular(), (error: unknown) => error instanceof Unavailable && /after 4 attempts.*broker is away/.test(error.message));
  });
  assert.equal(requests.length, 4);
});

test("Retry-After is obeyed; a wait beyond the time left ends the call", async () => {
  const began = Date.now();
  await scripted([{ ...BUSY, headers: { "retry-after": "1" } }, OK], async (client) => {
    await client.popular();
  });
  assert.ok(Date.now() - began > 900);
  const requests = await scripted([{ ...BUSY, headers: { "retry-after": "3600" } }], async (client) => {
    await assert.rejects(client.popular(), Unavailable);
  });
  assert.equal(requests.length, 1);
});

test("an error that a retry cannot fix is raised at once", async () => {
  for (const [reply, kind] of [
    [{ status: 422, body: '{"error":"bad_token","detail":"no token"}' }, RequestRejected],
    [{ status: 404, body: "<html>nginx" }, UnexpectedAnswer],
    [{ status: 200, body: "<html>login" }, UnexpectedAnswer],
    [{ status: 302, headers: { location: "/login" } }, UnexpectedAnswer],
  ] as const) {
    const requests = await scripted([reply], async (client) => {
      await assert.rejects(client.popular(), kind);
    });
    assert.equal(requests.length, 1);
  }
});

test("after a partial success only the rest is sent again, unchanged", async () => {
  const results = [
    { index: 0, token: "interactions:0:1" },
    { index: 1, error: "log_unavailable", detail: "-" },
  ];
  const partly: Reply = { status: 207, body: JSON.stringify({ accepted: 1, rejected: 1, results }) };
  const rest: Reply = { status: 202, body: JSON.stringify({ accepted: 1, rejected: 0, results: [{ index: 0, token: "interactions:0:2" }] }) };
  const requests = await scripted([partly, rest], async (client) => {
    const sent = await client.sendEvents(["a", "b"].map((item_id) => ({ user_id: "42", item_id, event_type: "like" })));
    assert.deepEqual(sent.results.map((result) => result.token), ["interactions:0:1", "interactions:0:2"]);
  });
  const [first, second] = requests.map((request) => JSON.parse(request.body) as unknown[]);
  assert.deepEqual(second, [first?.[1]]);
});

test("an error during sending contains the accepted events", async () => {
  await scripted([BUSY], async (client) => {
    await assert.rejects(client.sendEvents({ user_id: "42", item_id: "9", event_type: "like" }), (error: unknown) => {
      assert.ok(error instanceof Unavailable);
      assert.deepEqual(error.results?.results.map((result) => result.error), ["not_sent"]);
      return true;
    });
  });
});
