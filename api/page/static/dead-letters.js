/** Dead letters: messages that are no valid event; their reason, an edited message, a replay. */

import { address, bytes, button, confirmed, element, failure, message, number, section, table, when } from "./elements.js";
import { curl, get, send } from "./http.js";

export async function render(root, { id, query, signal }) {
  await (id ? renderLetter(root, id, signal) : renderList(root, query, signal));
}

async function renderList(root, query, signal) {
  const code = query.get("code") ?? "";
  const page = await get("api/dead-letters", { query: { code, cursor: query.get("cursor") }, signal });
  root.append(
    element(
      "p",
      {},
      `${number(page.waiting)} dead letters wait, ${number(page.replayed)} were replayed. A dead letter is a message that is no valid event: nothing was counted from it.`,
    ),
  );
  if (!page.complete) root.append(message("warn", "The server is still reading the topic: reload in a moment."));
  root.append(
    section(
      "By code",
      table(
        "Waiting letters by code",
        [
          { label: "code", value: ([name]) => element("a", { href: address("dead-letters", "", { code: name }) }, name) },
          { label: "letters", number: true, value: ([, count]) => number(count) },
        ],
        Object.entries(page.codes),
      ),
    ),
    section(
      code ? `Newest with code ${code}` : "Newest",
      code ? element("p", {}, element("a", { href: address("dead-letters") }, "All codes")) : null,
      table(
        "Dead letters, newest first",
        [
          { label: "message", value: ({ place }) => element("a", { href: address("dead-letters", place) }, place) },
          { label: "stored", value: ({ at }) => (at ? when(at) : "–") },
          { label: "code", value: (letter) => letter.code },
          { label: "size", number: true, value: (letter) => bytes(letter.bytes) },
          { label: "reason", value: ({ reason }) => reason },
        ],
        page.letters,
      ),
      page.cursor
        ? element("p", {}, element("a", { href: address("dead-letters", "", code ? { code, cursor: page.cursor } : { cursor: page.cursor }) }, "Older letters"))
        : null,
    ),
  );
}

async function renderLetter(root, place, signal) {
  const path = `api/dead-letters/${encodeURIComponent(place)}`;
  const letter = await get(path, { signal });
  const facts = [
    ["message", letter.place],
    ["stored", letter.at ? when(letter.at) : "–"],
    ["key", letter.key ?? "none"],
    ["size", `${bytes(letter.bytes)}${letter.truncated ? ", only the beginning is shown; a replay reads the whole again" : ""}`],
    ["code", letter.code],
    ["reason", letter.reason],
  ];
  root.append(
    element("p", {}, element("a", { href: address("dead-letters") }, "All dead letters")),
    table(
      "The letter",
      [
        { label: "field", value: ([name]) => name },
        { label: "value", value: ([, value]) => value },
      ],
      facts,
    ),
  );
  if (letter.replayed_to) {
    root.append(message("good", `It was replayed: it is ${letter.replayed_to}.`), element("pre", {}, letter.message ?? ""));
    return;
  }
  root.append(editor(letter, path, signal));
}

function editor(letter, path, signal) {
  const area = element("textarea", { id: "letter", rows: "14", spellcheck: "false", "aria-describedby": "letter-note" });
  const before = pretty(letter.message);
  area.value = before;
  const result = element("div", { "aria-live": "polite" });

  /** The body of a replay: without a message if nothing was edited. Throws where it is no JSON. */
  const body = (extra) => {
    if (area.value === before) return { ...extra };
    let edited;
    try {
      edited = JSON.parse(area.value);
    } catch (error) {
      throw new Error(`The edited message is not JSON: ${error.message}`);
    }
    return { message: edited, ...extra };
  };
  const attempt = async (work) => {
    result.replaceChildren();
    try {
      result.replaceChildren(...(await work()));
    } catch (error) {
      if (!signal.aborted) result.replaceChildren(failure(error));
    }
  };
  const check = () =>
    attempt(async () => {
      const answer = await send("POST", `${path}/replay`, body({ dry_run: true }), { signal });
      return [message("good", "It is valid now, and would be sent as:"), element("pre", {}, answer.message)];
    });
  const replay = () =>
    attempt(async () => {
      const request = body({});
      const question = element("p", {}, `${letter.place} is sent again, ${request.message ? "as edited" : "as it is"}. It counts as an event then.`);
      if (!(await confirmed("Replay this letter?", question, "Replay"))) return [];
      const answer = await send("POST", `${path}/replay`, request, { signal });
      buttons.remove();
      area.readOnly = true;
      return [message("good", `It was sent: it is ${answer.token}.`)];
    });
  const buttons = element("p", { class: "buttons" }, button("Check", check), button("Replay", replay, "primary"));
  return section(
    "Edit and replay",
    element("label", { for: "letter" }, "Message"),
    area,
    element(
      "p",
      { class: "note", id: "letter-note" },
      "The whole message, as JSON. A replay keeps its event_id, so it counts once. A letter older than the deletion of its user or item is refused.",
    ),
    buttons,
    result,
    element("details", {}, element("summary", {}, "As a command"), element("pre", {}, curl("POST", `${path}/replay`, {}))),
  );
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text ?? "";
  }
}
