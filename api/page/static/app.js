/**
 * The page: draws the navigation, and shows the view that the address names.
 *
 * Addresses: #/now, #/models, #/users/ID, #/items/ID, #/experiments, #/dead-letters; after `?` the
 * parameters of a view, as in a query string. IDs are percent-encoded.
 *
 * Each view is a module that exports
 *
 *   render(root, parameters)
 *
 * - `root`: an empty element of the page, which already has the view's heading (h1) above it. What
 *   the view shows goes into it, made by elements.js: text becomes text nodes, never HTML.
 * - `parameters.id`: the decoded ID of the address, "" without one.
 * - `parameters.query`: URLSearchParams of the address.
 * - `parameters.signal`: an AbortSignal that is aborted when another address is shown. Pass it to
 *   every request of http.js and to addEventListener, and end timers by it.
 *
 * It may be async. An error that it throws is shown in its place; http.js has asked for a key by
 * then, if one was missing. To show another address, set location.hash (`address` makes one).
 */

import { element, failure } from "./elements.js";

const VIEWS = [
  { path: "now", label: "Now", title: "Now", module: "./now.js" },
  { path: "models", label: "Models", title: "Models", module: "./models.js" },
  { path: "users", label: "Users", title: "Users", module: "./user.js" },
  { path: "items", label: "Items", title: "Items", module: "./item.js" },
  { path: "experiments", label: "Experiments", title: "Experiments", module: "./experiments.js" },
  { path: "dead-letters", label: "Dead letters", title: "Dead letters", module: "./dead-letters.js" },
];

const main = document.getElementById("main");
let left = new AbortController();

/** The view and the parameters that an address (location.hash) names; unknown ones are Now. */
function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [name, ...rest] = path.split("/");
  let id = rest.join("/");
  try {
    id = decodeURIComponent(id);
  } catch {
    // a typed address with a bare %: taken as it is
  }
  const view = VIEWS.find((candidate) => candidate.path === name) ?? VIEWS[0];
  return { view, id, query: new URLSearchParams(query) };
}

function showNavigation(current) {
  const links = VIEWS.map(({ path, label }) =>
    element(
      "li",
      {},
      element("a", { href: `#/${path}`, "aria-current": path === current ? "page" : null }, label),
    ),
  );
  document.getElementById("views").replaceChildren(...links);
}

async function show(moveFocus) {
  left.abort();
  left = new AbortController();
  const { signal } = left;
  const { view, id, query } = parse(location.hash);
  document.title = id ? `${id} - ${view.title} - Eddyline` : `${view.title} - Eddyline`;
  showNavigation(view.path);
  const root = element("div", { class: "view", "data-view": view.path });
  main.replaceChildren(element("h1", {}, view.title), root);
  if (moveFocus) {
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  try {
    const module = await import(view.module);
    if (!signal.aborted) await module.render(root, { id, query, signal });
  } catch (error) {
    if (!signal.aborted) root.append(failure(error));
  }
}

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("hashchange", () => show(true));
show(false);
