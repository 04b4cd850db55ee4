/** Items: search by text; an item's entry, popularity over time, similar items, and its users. */

import { chart, colour } from "./charts.js";
import { address, element, figure, figures, message, number, searchForm, section, showParts, table, when } from "./elements.js";
import { curl, get } from "./http.js";

export async function render(root, { id, query, signal }) {
  const text = query.get("q") ?? "";
  root.append(searchForm("items", "Words of a title, a category, a tag or an id", "Search items", text));
  if (id) await renderItem(root, id, signal);
  else await renderList(root, text, signal);
}

async function renderList(root, text, signal) {
  if (text) {
    const { items } = await get("api/items", { query: { q: text, limit: 50 }, signal });
    root.append(itemTable(`Items with "${text}"`, items));
    return;
  }
  const { recommendations } = await get("api/popular", { query: { limit: 10, reasons: "false" }, signal });
  root.append(section("Popular now", lines("The most popular items", recommendations)));
}

function itemTable(caption, items) {
  return table(caption, [
    { label: "item", value: (item) => link(item.item_id, item.title) },
    { label: "type", value: (item) => item.item_type },
    { label: "categories", value: (item) => item.categories.join(", ") },
    { label: "available", value: (item) => (item.available ? "yes" : "no") },
  ], items);
}

/** A link to an item, named by its title and its id. */
export function link(itemId, title) {
  return element("a", { href: address("items", itemId) }, title ? `${title} (${itemId})` : itemId);
}

function lines(caption, recommendations) {
  return table(caption, [
    { label: "rank", number: true, value: (line) => line.rank },
    { label: "item", value: (line) => link(line.item_id, line.metadata.title) },
    { label: "score", number: true, value: (line) => number(line.score, 3) },
    { label: "by", value: (line) => line.method },
  ], recommendations);
}

async function renderItem(root, id, signal) {
  const path = `api/items/${encodeURIComponent(id)}`;
  await showParts(root, [entry, activity, similar, users].map((part) => () => part(path, signal)), signal);
}

async function entry(path, signal) {
  const { item } = await get(path, { signal });
  const facts = [
    ["type", item.item_type],
    ["available", item.available ? "yes" : "no: it is in no answer"],
    ["categories", item.categories.join(", ") || "none"],
    ["tags", item.tags.join(", ") || "none"],
    ...Object.entries(item.attributes).map(([name, value]) => [`attribute ${name}`, Array.isArray(value) ? value.join(", ") : String(value)]),
    ["created", item.created_at === null ? "unknown" : when(item.created_at)],
    ["text", item.text ?? "none"],
  ];
  return [
    section(
      item.title ?? item.item_id,
      table("The entry in the catalogue", [
        { label: "field", value: ([name]) => name },
        { label: "value", value: ([, value]) => value },
      ], facts),
      element("details", {}, element("summary", {}, "The same as a command"), element("pre", {}, curl("GET", path))),
    ),
  ];
}

async function activity(path, signal) {
  const { popularity, hour, week } = await get(`${path}/activity`, { signal });
  const now = Object.entries(popularity).map(([name, score]) => figure(name, number(score, 3), "popularity: 1 is the most popular item"));
  const heading = section("Popularity over time");
  heading.append(now.length ? figures(...now) : element("p", {}, "It is not among the thousand most popular items of any use case."));
  if (!Object.keys(week).length && !Object.keys(hour).length) {
    heading.append(message("info", "No event with it in the last week. Nothing older is stored by time."));
    return [heading];
  }
  const charts = [
    ["Weight of its events by hour, in the last week", week],
    ["Weight of its events by 5 minutes, in the last hour", hour],
  ].map(([title, series]) => bars(title, series, signal));
  heading.append(element("div", { class: "charts" }, charts));
  return [heading];
}

const COLOURS = ["--als", "--ensemble", "--two_tower", "--content_based", "--popular"];

function bars(title, series, signal) {
  const names = Object.keys(series);
  const drawing = chart(title, signal);
  const sum = (weights) => weights.reduce((total, weight) => total + weight, 0);
  drawing.describe(names.length ? names.map((name) => `${name} ${number(sum(series[name].weights))}`).join("; ") : "none");
  queueMicrotask(() =>
    drawing.draw(() => [
      names.map((name, index) => {
        const { start, seconds, weights } = series[name];
        return {
          type: "bar",
          name,
          x: weights.map((_, part) => new Date(1000 * (start + part * seconds))),
          y: weights,
          marker: { color: colour(COLOURS[index % COLOURS.length]) },
        };
      }),
      { barmode: "stack", showlegend: names.length > 1, legend: { orientation: "h", y: -0.2 } },
    ]),
  );
  return drawing.root;
}

async function similar(path, signal) {
  const answer = await get(`${path}/similar`, { query: { limit: 10 }, signal });
  return [
    section(
      "Similar items",
      lines("Items with interactions of the same users, or else with similar content", answer.recommendations),
      causes(answer.fallbacks),
    ),
  ];
}

/** Why engines did not answer, as a list. */
export function causes(fallbacks) {
  if (!fallbacks.length) return null;
  return element("ul", { class: "note" }, fallbacks.map(({ engine, cause }) => element("li", {}, `${engine}: ${cause}`)));
}

async function users(path, signal) {
  const answer = await get(`${path}/users`, { signal });
  return [
    section(
      "Who it is for",
      element("p", { class: "note" }, "Users of the last training whose ALS vector scores it highest, without those who have an event with it."),
      answer.cause ? message("info", `${answer.cause}.`) : null,
      table("Users who would like it", [
        { label: "user", value: (user) => element("a", { href: address("users", user.user_id) }, user.user_id) },
        { label: "score", number: true, value: (user) => number(user.score, 3) },
        { label: "in their answer now", value: (user) => (user.shown_at === null ? "not among the first" : `place ${user.shown_at}`) },
      ], answer.users),
    ),
  ];
}
