/** Tests against a real API with the world of tests/api/world.py, at EDDYLINE_URL with EDDYLINE_KEY. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { EddylineClient, EventsRejected, InvalidInput, MAX_EVENTS, RequestRejected, type Event } from "../src/index.js";

const url = process.env["EDDYLINE_URL"] ?? "";
const client = new EddylineClient(`${url}/`, { apiKey: process.env["EDDYLINE_KEY"] ?? "", timeoutMs: 60_000 });
const userId = "typescript/ü ?";
const like = (item_id: string): Event => ({ user_id: userId, item_id, event_type: "like" });

test("every call works against the API and ingest", async () => {
  const declared = await client.upsertUser({ user_id: userId, interests: ["health"], roles: [], attributes: {} });
  const state = await client.user(userId, { after: declared.token });
  assert.deepEqual([state.user_id, state.profile?.interests, state.stale], [userId, ["health"], false]);

  const sent = await client.sendEvents(["pay", "bank", "pay", "bank", "pay", "bank"].map(like));
  assert.deepEqual([sent.accepted, sent.rejected], [6, 0]);
  const token = sent.results[5]?.token ?? "";
  const answer = await client.recommend(userId, { use_case: "developer_startup", limit: 2, category: "fintech", after: token });
  assert.deepEqual([answer.interaction_count, answer.method_used, answer.stale], [6, "als", false]);
  assert.equal(answer.recommendations[0]?.item_id, "coin");
  const filtered = await client.recommend(userId, {
    include_seen: true,
    exclude: ["pay", "pill"],
    attr: { stage: ["seed", "growth"], "founded.min": 2015 },
    reasons: false,
  });
  assert.deepEqual(new Set(filtered.recommendations.map((line) => line.item_id)), new Set(["coin", "gene"]));

  const explanation = await client.explain(userId, "coin", { use_case: "developer_startup" });
  assert.ok(explanation.shown && explanation.engines.some((view) => view.engine === "als"));
  assert.ok(["bank", "coin"].includes((await client.similarItems("pay", { limit: 1 })).recommendations[0]?.item_id ?? ""));
  assert.equal((await client.popular({ use_case: "investor_startup", limit: 1, window: "day" })).method_used, "popular");
  assert.ok((await client.similarUsers(userId, { limit: 3 })).cause);

  const item = { item_id: "new/two", item_type: "startup", categories: ["fintech"], tags: [], attributes: { two: true }, available: true };
  const added = await client.upsertItem(item);
  assert.equal(added.id, "new/two");
  const fresh = await client.recommend(userId, { after: added.token, attr: { two: true } });
  assert.deepEqual(fresh.recommendations.map((line) => line.item_id), ["new/two"]);
  const hidden = await client.patchItem("new/two", { available: false });
  const entry = await client.item("new/two", { after: hidden.token });
  assert.deepEqual([entry.item.available, entry.item.categories], [false, ["fintech"]]);
  assert.ok((await client.items({ limit: 1000 })).items.some((line) => line.item_id === "new/two"));
  assert.equal((await client.upsertItems([{ ...item, item_id: "new/three", attributes: {} }])).accepted, 1);
  assert.equal((await client.upsertUsers([{ user_id: `${userId}-2`, roles: [], interests: ["health"], attributes: {} }])).accepted, 1);
  const roles = await client.patchUser(`${userId}-2`, { roles: ["developer"] });
  assert.deepEqual((await client.user(`${userId}-2`, { after: roles.token })).profile?.interests, ["health"]);
  const gone = await client.deleteItem("new/two");
  assert.deepEqual((await client.recommend(userId, { after: gone.token, attr: { two: true } })).recommendations, []);

  const forgotten = await client.deleteUser(userId);
  assert.equal((await client.user(userId, { after: forgotten.token })).known, false);
});

test("a refused request raises a typed error", async () => {
  const wrong = { ...like("pay"), event_type: "teleport" };
  await assert.rejects(client.sendEvents([like("pay"), wrong]), (error: unknown) => {
    assert.ok(error instanceof EventsRejected);
    assert.deepEqual(error.results.results.map((result) => result.error ?? null), [null, "unknown_event_type"]);
    return true;
  });
  await assert.rejects(client.sendEvents(wrong), EventsRejected);
  await assert.rejects(client.recommend("42", { limit: 1000 }), (error: unknown) => {
    assert.ok(error instanceof RequestRejected);
    assert.deepEqual([error.name, error.status, error.error], ["RequestRejected", 422, "invalid_parameter"]);
    return true;
  });
  await assert.rejects(new EddylineClient(url, { apiKey: "wrong" }).deleteItem("pay"), /401: unauthorized/);
  await assert.rejects(async () => client.user(".."), InvalidInput);
  assert.throws(() => new EddylineClient("localhost:8000"), InvalidInput);
});

test("more events than fit into one request are sent in several", async () => {
  const many = await client.sendEvents(Array.from({ length: MAX_EVENTS + 1 }, (_, number) => like(`item-${number}`)));
  assert.deepEqual([many.accepted, many.results[MAX_EVENTS]?.index], [MAX_EVENTS + 1, MAX_EVENTS]);
});
