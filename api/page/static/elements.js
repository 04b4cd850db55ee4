/**
 * Makes the elements of the page. Everything that comes from the API or from somebody's typing
 * becomes a text node or an attribute, never HTML.
 */

/**
 * An element. `attributes`: null and false leave one out; `on...`: a listener.
 * `children`: nodes, or values that become text; null and false are left out.
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat().filter((child) => child !== null && child !== false && child !== undefined));
  return made;
}

/** The address of a view: address("users", "42", {engine: "als"}) is #/users/42?engine=als. */
export function address(view, id = "", query = {}) {
  const text = new URLSearchParams(query).toString();
  return `#/${view}${id === "" ? "" : `/${encodeURIComponent(id)}`}${text ? `?${text}` : ""}`;
}

/** A section with a heading: the unit of which a view is made. */
export function section(title, ...children) {
  const id = `s-${title.toLowerCase().replace(/[^a-z0-9]+/g, "-")}`;
  return element("section", { "aria-labelledby": id }, element("h2", { id }, title), ...children);
}

/**
 * A table in a box that scrolls sideways on a narrow screen.
 * `columns`: {label, value(row): a node or text, number: whether it is aligned as a number}; the
 * first column heads its row.
 */
export function table(caption, columns, rows, empty = "none") {
  if (!rows.length) return element("p", { class: "note" }, `${caption}: ${empty}.`);
  const aligned = (column) => ({ class: column.number ? "number" : null });
  const head = columns.map((column) => element("th", { scope: "col", ...aligned(column) }, column.label));
  const body = rows.map((row) =>
    element(
      "tr",
      {},
      columns.map((column, index) =>
        index === 0
          ? element("th", { scope: "row", ...aligned(column) }, column.value(row))
          : element("td", aligned(column), column.value(row)),
      ),
    ),
  );
  return element(
    "div",
    { class: "scrolling", tabindex: "0", role: "region", "aria-label": caption },
    element(
      "table",
      {},
      element("caption", {}, caption),
      element("thead", {}, element("tr", {}, head)),
      element("tbody", {}, body),
    ),
  );
}

/** One number with its name, and a sentence about it. `state`: null, "good", "warn" or "bad". */
export function figure(label, value, note = "", state = null) {
  return element(
    "div",
    { class: state ? `figure ${state}` : "figure" },
    element("dt", {}, label),
    element("dd", {}, element("strong", { class: String(value).length > 14 ? "long" : null }, value), note ? element("small", {}, note) : null),
  );
}

/** A list of figures. */
export function figures(...entries) {
  return element("dl", { class: "figures" }, ...entries);
}

/** A button. `kind`: "", "primary" or "danger". */
export function button(label, onclick, kind = "") {
  return element("button", { type: "button", class: kind || null, onclick }, label);
}

/** A labelled input. `input`: attributes of the input element, with its id, which is its name too. */
export function field(label, input) {
  return element("label", { for: input.id }, label, element("input", { name: input.id, ...input }));
}

/** The form that searches in a view: it sets the address to #/VIEW?q=TEXT. */
export function searchForm(view, label, action, text) {
  return element(
    "form",
    {
      class: "row",
      role: "search",
      onsubmit: (event) => {
        event.preventDefault();
        location.hash = address(view, "", { q: new FormData(event.target).get("q") });
      },
    },
    field(label, { id: "q", name: "q", type: "search", value: text, required: true }),
    element("button", { type: "submit", class: "primary" }, action),
  );
}

/** A message in the view; an error is announced. `kind`: "info", "good", "warn" or "bad". */
export function message(kind, ...children) {
  return element("p", { class: `message ${kind}`, role: kind === "bad" ? "alert" : "status" }, ...children);
}

/** What failed, in the API's words. */
export function failure(error) {
  return message("bad", error.message || String(error));
}

/**
 * Shows parts that are asked for at once, in their order: one that fails is said in its place, the
 * others are shown. `parts`: async functions that return nodes.
 */
export async function showParts(root, parts, signal) {
  const places = parts.map(() => element("div", {}));
  root.append(...places);
  await Promise.all(
    parts.map(async (part, index) => {
      try {
        places[index].append(...(await part()));
      } catch (error) {
        if (!signal.aborted) places[index].append(failure(error));
      }
    }),
  );
}

let dialogs = 0;

/**
 * Asks in a dialog before something is done. Resolves to what the dialog's fields hold (FormData)
 * when it is confirmed, else to null.
 * `children`: what is shown below the title; `action`: the label of the button that confirms.
 */
export function confirmed(title, children, action, kind = "primary") {
  return new Promise((resolve) => {
    const id = `dialog-${(dialogs += 1)}`;
    const dialog = element("dialog", { "aria-labelledby": id });
    const form = element(
      "form",
      {
        method: "dialog",
        onsubmit: (event) => {
          event.preventDefault();
          dialog.close("yes");
        },
      },
      element("h2", { id }, title),
      ...[children].flat(),
      element(
        "p",
        { class: "buttons" },
        button("Cancel", () => dialog.close("")),
        element("button", { type: "submit", class: kind }, action),
      ),
    );
    dialog.append(form);
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes" ? new FormData(form) : null);
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 12,345; below 100 with `digits` decimals. null: a dash. */
export function number(value, digits = 1) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) >= 100 || Number.isInteger(value) ? plain.format(value) : value.toFixed(digits);
}

/** A share as 12.3%. */
export function percent(share) {
  return share === null || share === undefined ? "–" : `${(100 * share).toFixed(share < 0.1 && share > 0 ? 1 : 0)}%`;
}

/** 1.4 GB. */
export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  let size = value;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? size : size.toFixed(size < 10 ? 1 : 0)} ${units[unit]}`;
}

/** 3.2 ms, 1.5 s. */
export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  return value >= 1000 ? `${(value / 1000).toFixed(1)} s` : `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

/** A length of time in words: 12 s, 3 min, 5 h, 2 days. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 120) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

/** A time as a reader's clock shows it. `at`: seconds since 1970, or ISO 8601. */
export function when(at) {
  if (at === null || at === undefined || at === "") return "–";
  const date = new Date(typeof at === "number" ? at * 1000 : at);
  const text = Number.isNaN(date.getTime()) ? String(at) : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  return element("time", { datetime: Number.isNaN(date.getTime()) ? null : date.toISOString() }, text);
}
