/**
 * Users: a user's state, what each engine would answer side by side, why an item is there or not,
 * and the same for other filters and another history. The address holds every choice.
 */

import { address, button, element, failure, field, figure, figures, message, number, searchForm, section, showParts, table, when } from "./elements.js";
import { curl, get } from "./http.js";
import { causes, link } from "./item.js";

const ENGINES = ["", "ensemble", "als", "two_tower", "content_based", "popular"];
const CHOICES = ["use_case", "engine", "category", "limit", "diversity", "explore", "include_seen"];
const RECENT = 20;

export async function render(root, parameters) {
  const { id, query, signal } = parameters;
  root.append(searchForm("users", "Id of a user, or a part of it", "Search users", query.get("q") ?? ""));
  if (id) await renderUser(root, parameters);
  else if (query.get("q")) await renderMatches(root, query.get("q"), signal);
  else root.append(message("info", "Type the id of a user, or a part of it."));
}

async function renderMatches(root, text, signal) {
  const user = await get(`api/users/${encodeURIComponent(text)}`, { signal });
  if (user.known) {
    location.replace(address("users", text));
    return;
  }
  const { users, cause } = await get("api/users", { query: { q: text, limit: 50 }, signal });
  root.append(
    element("p", {}, `Nothing is stored about a user ${text}. `, element("a", { href: address("users", text) }, "What would they get?")),
    cause ? message("info", `Users cannot be searched: ${cause}.`) : null,
    table(
      `Users of the last training whose id contains "${text}"`,
      [{ label: "user", value: (name) => element("a", { href: address("users", name) }, name) }],
      users,
    ),
  );
}

async function renderUser(root, { id, query, signal }) {
  await showParts(root, [() => state(id, signal), () => preview(id, query, signal), () => similarUsers(id, signal)], signal);
}

async function state(id, signal) {
  const user = await get(`api/users/${encodeURIComponent(id)}`, { signal });
  const counts = Object.entries(user.counts).map(([name, count]) => figure(name, number(count)));
  const latest = user.history.slice(-RECENT).reverse();
  return [
    section(
      id,
      user.known ? null : message("info", "Nothing is stored about this user: never seen, or deleted."),
      figures(
        figure("interactions", number(user.interaction_count), user.first_seen ? element("span", {}, "since ", when(user.first_seen)) : ""),
        figure("engine", user.engine, user.why),
        ...counts,
      ),
      user.profile
        ? element("p", {}, `Declared: roles ${user.profile.roles?.join(", ") || "none"}; interests ${user.profile.interests?.join(", ") || "none"}.`)
        : null,
      element(
        "details",
        {},
        element("summary", {}, `History: the latest ${latest.length} of ${user.history.length} stored events`),
        table(
          "Latest events, newest first",
          [
            { label: "when", value: (event) => when(event.timestamp) },
            { label: "event", value: (event) => (event.value === null || event.value === undefined ? event.event_type : `${event.event_type} ${event.value}`) },
            { label: "item", value: (event) => link(event.item_id) },
          ],
          latest,
        ),
      ),
    ),
  ];
}

/** The parameters of the API in the address of the view. */
function requested(query) {
  const chosen = new URLSearchParams();
  for (const [name, value] of query) {
    if (value && (CHOICES.includes(name) || name === "event" || name === "without")) chosen.append(name, value);
  }
  return chosen;
}

function pathOf(kind, id, chosen, itemId = null) {
  const ids = [id, ...(itemId === null ? [] : [itemId])].map(encodeURIComponent).join("/");
  const text = chosen.toString();
  return `api/${kind}/${ids}${text ? `?${text}` : ""}`;
}

async function preview(id, query, signal) {
  const chosen = requested(query);
  const go = (changed) => {
    location.hash = `#/users/${encodeURIComponent(id)}?${changed}`;
  };
  const filtered = CHOICES.some((name) => chosen.has(name));
  const filters = element(
    "details",
    { open: filtered },
    element("summary", {}, "Engine, filters, diversity, exploration"),
    choices(chosen, go),
  );
  const parts = [section("Try it", changes(chosen, go), filters)];
  const path = pathOf("preview", id, chosen);
  try {
    const answer = await get(path, { signal });
    parts.push(...answers(id, chosen, path, answer, signal));
  } catch (error) {
    if (!signal.aborted) parts.push(failure(error));
  }
  return parts;
}

function choices(chosen, go) {
  const value = (name) => chosen.get(name) ?? "";
  const options = ENGINES.map((name) => element("option", { value: name, selected: name === value("engine") }, name || "as routed"));
  return element(
    "form",
    {
      class: "row",
      onsubmit: (event) => {
        event.preventDefault();
        const entered = new FormData(event.target);
        const changed = new URLSearchParams(chosen);
        for (const name of CHOICES) {
          const text = String(entered.get(name) ?? "").trim();
          if (text) changed.set(name, text);
          else changed.delete(name);
        }
        go(changed);
      },
    },
    element("label", { for: "engine" }, "First engine", element("select", { id: "engine", name: "engine" }, options)),
    field("Use case", { id: "use_case", name: "use_case", value: value("use_case") }),
    field("Categories, comma-separated", { id: "category", name: "category", value: value("category") }),
    field("Items", { id: "limit", name: "limit", type: "number", min: "1", max: "100", value: value("limit") }),
    field("Diversity, 0 to 1", { id: "diversity", name: "diversity", type: "number", min: "0", max: "1", step: "0.05", value: value("diversity") }),
    field("Exploration, 0 to 1", { id: "explore", name: "explore", type: "number", min: "0", max: "1", step: "0.05", value: value("explore") }),
    element(
      "label",
      { for: "include_seen" },
      element("input", { id: "include_seen", name: "include_seen", type: "checkbox", value: "true", checked: value("include_seen") === "true" }),
      " Also items of the history",
    ),
    element("button", { type: "submit", class: "primary" }, "Show"),
  );
}

/** What if they also liked ...: events to add and to leave out; nothing is stored. */
function changes(chosen, go) {
  const without = (name, text) => {
    const changed = new URLSearchParams(chosen);
    const rest = changed.getAll(name).filter((entry) => entry !== text);
    changed.delete(name);
    for (const entry of rest) changed.append(name, entry);
    go(changed);
  };
  const entries = ["event", "without"].flatMap((name) =>
    chosen.getAll(name).map((text) =>
      element(
        "li",
        {},
        name === "event" ? `also ${text.replace(":", " ")}` : `without ${text}`,
        " ",
        button("Undo", () => without(name, text)),
      ),
    ),
  );
  return element(
    "div",
    {},
    element(
      "form",
      {
        class: "row",
        onsubmit: (event) => {
          event.preventDefault();
          const entered = new FormData(event.target);
          const changed = new URLSearchParams(chosen);
          const item = String(entered.get("item")).trim();
          if (entered.get("kind") === "without") changed.append("without", item);
          else changed.append("event", `${entered.get("kind")}:${item}`);
          go(changed);
        },
      },
      element(
        "label",
        { for: "kind" },
        "What if they also did",
        element("input", { id: "kind", name: "kind", value: "like", list: "kinds", required: true, autocomplete: "off" }),
        element("datalist", { id: "kinds" }, ["like", "view", "save", "without"].map((kind) => element("option", { value: kind }))),
      ),
      field("with the item (its id)", { id: "item", name: "item", required: true }),
      element("button", { type: "submit" }, "What if?"),
    ),
    entries.length ? element("ul", {}, entries) : element("p", { class: "note" }, 'The answers below are for the stored history. Nothing that is tried here is stored; "without" leaves out their events with an item.'),
  );
}

function answers(id, chosen, path, { answer, engines, routing }, signal) {
  const why = element("div", { "aria-live": "polite" });
  const explain = async (itemId) => {
    why.replaceChildren(element("p", { class: "note" }, `Why ${itemId}?`));
    try {
      why.replaceChildren(await explanation(id, chosen, itemId, signal));
    } catch (error) {
      if (!signal.aborted) why.replaceChildren(failure(error));
    }
    why.scrollIntoView({ block: "nearest" });
  };
  const ask = element(
    "form",
    {
      class: "row",
      onsubmit: (event) => {
        event.preventDefault();
        explain(String(new FormData(event.target).get("why")).trim());
      },
    },
    field("Why not this item? Its id", { id: "why", name: "why", required: true }),
    element("button", { type: "submit" }, "Explain"),
  );
  const columns = [
    { label: "rank", number: true, value: (line) => line.rank },
    { label: "item", value: (line) => link(line.item_id, line.metadata.title) },
    { label: "score", number: true, value: (line) => number(line.score, 3) },
    { label: "by", value: (line) => line.method },
    { label: "because", value: (line) => line.reasons.map((reason) => reason.text).join("; ") },
    { label: "why", value: (line) => explainButton(line.item_id, explain) },
  ];
  return [
    section(
      "What they get",
      answer.degraded ? message("warn", "A part of the service is missing: the answer is degraded.") : null,
      element(
        "p",
        { class: "note" },
        `${routing}. Answered by ${answer.method_used}, model ${answer.model_version ?? "none"}${answer.variant ? `, in the variant ${answer.variant}` : ""}.`,
      ),
      table("The answer", columns, answer.recommendations),
      causes(answer.fallbacks),
      ask,
      why,
    ),
    section(
      "Each engine alone",
      element("div", { class: "columns" }, engines.map((entry) => engine(entry, answer.method_used))),
    ),
    section(
      "The same as a command",
      element("pre", {}, curl("GET", pathOf("recommendations", id, withoutChanges(chosen)))),
      element("pre", {}, curl("GET", path)),
    ),
  ];
}

function explainButton(itemId, explain) {
  const made = button("Explain", () => explain(itemId));
  made.setAttribute("aria-label", `Explain ${itemId}`);
  return made;
}

function withoutChanges(chosen) {
  const rest = new URLSearchParams(chosen);
  rest.delete("event");
  rest.delete("without");
  return rest;
}

function engine({ engine: name, cause, recommendations }, used) {
  return element(
    "div",
    {},
    element("h3", {}, name, name === used ? " (answers)" : ""),
    cause ? element("p", { class: "note" }, `${cause}.`) : null,
    recommendations.length
      ? element(
          "ol",
          {},
          recommendations.map((line) => element("li", {}, link(line.item_id, line.metadata.title), ` ${number(line.score, 3)}`)),
        )
      : null,
  );
}

async function explanation(id, chosen, itemId, signal) {
  const view = await get(pathOf("explain", id, chosen, itemId), { signal });
  const verdict = view.shown
    ? `It is shown, at place ${view.rank}.`
    : view.removed_by.length
      ? `It is not shown: ${view.removed_by.join("; ")}.`
      : view.rank_if_allowed === null
        ? `It is not shown: ${view.method_used} has no score for it.`
        : `It is not shown: by ${view.method_used} its rank is ${view.rank_if_allowed}.`;
  return element(
    "div",
    {},
    element("h3", {}, "Why ", link(itemId), "?"),
    element("p", {}, verdict),
    table(
      "Its score by each engine",
      [
        { label: "engine", value: (row) => row.engine },
        { label: "score", number: true, value: (row) => (row.score === null ? "–" : number(row.score, 3)) },
        { label: "rank", number: true, value: (row) => (row.rank === null ? "–" : `${row.rank} of ${number(row.candidates)}`) },
        { label: "made of", value: (row) => row.cause ?? parts(row.contributions) },
      ],
      view.engines,
    ),
  );
}

function parts(contributions) {
  return contributions
    .slice(0, 5)
    .map((part) => (part.contribution === null || part.contribution === undefined ? part.text : `${part.text} (${part.contribution.toFixed(3)})`))
    .join("; ");
}

async function similarUsers(id, signal) {
  const { users, cause } = await get(`api/users/${encodeURIComponent(id)}/similar`, { query: { limit: 10 }, signal });
  return [
    section(
      "Users with similar taste",
      cause ? message("info", `${cause}.`) : null,
      table(
        "Users with similar interactions",
        [
          { label: "user", value: (user) => element("a", { href: address("users", user.user_id) }, user.user_id) },
          { label: "likeness", number: true, value: (user) => number(user.score, 3) },
          { label: "items in common", value: (user) => user.shared_items.join(", ") },
        ],
        users,
      ),
    ),
  ];
}
