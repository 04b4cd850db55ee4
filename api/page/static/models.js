/** Models: the published versions on a time line, the last retrain, and what an admin may change. */

import { chart, colour } from "./charts.js";
import { button, confirmed, duration, element, failure, field, figure, figures, message, number, section, table, when } from "./elements.js";
import { get, request, send, urlOf } from "./http.js";

const POLL_MS = 2000;
const STEPS = ["snapshot", "dataset", "tune", "fit", "evaluate", "gate", "publish", "prune"];
const ENGINES = ["routed", "ensemble", "als", "two_tower", "content_based", "popular"];
/** Folders of a bundle that are no part of the model. */
const FOLDERS = new Set(["dataset", "evaluation"]);
const SHAPES = ["circle", "square", "diamond", "triangle-up", "cross", "x"];
const FIRST_METRIC = "ndcg@10";
const OUTCOME = { published: "good", running: null, refused: "warn", failed: "bad", interrupted: "warn", died: "bad" };

/** See app.js. `query.report`: the version whose report is shown. */
export async function render(root, { query, signal }) {
  const told = element("div", { "aria-live": "polite" });
  const top = element("div");
  const retrain = element("div");
  const line = chart("Quality of each version, as its retrain measured it", signal);
  const metric = element("select", { id: "metric" });
  const list = element("div");
  const report = element("div");
  const lineSection = section("Time line", element("form", { class: "row" }, element("label", { for: "metric" }, "Metric ", metric)), line.root);
  root.append(told, top, retrain, lineSection, list, report);

  let latest = null;
  let drawn = "";
  const say = (node) => told.replaceChildren(node);

  /** Do what an admin confirmed, say how it went, and look again. */
  const act = async (title, children, action, path) => {
    const typed = await confirmed(title, children, action);
    if (!typed) return;
    try {
      const body = typed.has("reason") ? { reason: typed.get("reason") } : undefined;
      const answer = await send("POST", path, body);
      say(message("good", answer.live ? `${answer.live} is live now.` : `The retrain is requested (${answer.token}); a training worker runs it.`));
    } catch (error) {
      say(failure(error));
    }
    await look();
  };

  const actions = {
    promote: (version) =>
      act(`Make ${version} live?`, element("p", {}, "Its files are verified first. Every process of the API then answers from it within a second."), "Promote", `api/models/${encodeURIComponent(version)}/promote`),
    rollBack: () =>
      act("Roll back?", element("p", {}, `The version that was live before ${latest?.live ?? "this one"} becomes live again.`), "Roll back", "api/models/rollback"),
    retrain: () => {
      const reason = { id: "reason", value: "asked for on the page", maxlength: 200 };
      return act(
        "Request a retrain?",
        [element("p", {}, "A training worker fits, evaluates and publishes a new version, unless the gate refuses it."), field("Reason", reason)],
        "Request it",
        "api/models/retrain",
      );
    },
  };
  const look = async () => {
    latest = await get("api/models", { signal });
    top.replaceChildren(overview(latest));
    retrain.replaceChildren(lastRetrain(latest.retrain, actions));
    const versions = JSON.stringify(latest.versions);
    if (versions === drawn) return;
    drawn = versions;
    list.replaceChildren(versionTable(latest, actions));
    showMetrics(metric, latest.versions);
    draw();
  };

  const draw = () => {
    const name = metric.value || FIRST_METRIC;
    const measured = latest.versions.filter((version) => version.created && Object.keys(version.metrics).length).reverse();
    lineSection.hidden = !measured.length;
    if (!measured.length) return;
    line.describe(`${name} of ${measured.length} versions; the numbers are in the table below`);
    line.draw(() => timeLine(measured, name, latest.live));
  };
  metric.addEventListener("change", draw, { signal });

  await look();
  if (query.get("report")) await showReport(report, query.get("report"), signal);
  while (!signal.aborted) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    if (signal.aborted || document.hidden) continue;
    try {
      await look();
    } catch (error) {
      if (!signal.aborted) say(failure(error));
    }
  }
}

function overview(models) {
  const live = models.versions.find((version) => version.live);
  const behind = models.live && models.serving !== models.live;
  return element(
    "div",
    { class: "stack" },
    models.summary ? message("info", models.summary) : null,
    figures(
      figure("Live", models.live ?? "none", live ? `${number(live.events)} events; ${live.parts.filter((part) => !FOLDERS.has(part)).join(", ")}` : "publish one by a retrain", models.live ? null : "warn"),
      figure("This process answers from", models.serving ?? "none", behind ? "not yet the live one" : "the live one", behind ? "warn" : null),
      figure(
        "Router",
        `${models.router.cold_start_threshold} and ${models.router.warm_user_threshold}`,
        `interactions from which ALS and the ensemble answer; ${models.router.why}`,
      ),
      figure("Versions", number(models.versions.length), "kept for a roll back"),
    ),
  );
}

function lastRetrain(run, actions) {
  const buttons = element("p", { class: "buttons" }, button("Retrain", actions.retrain), button("Roll back", actions.rollBack));
  if (!run) return section("Retrain", element("p", { class: "note" }, "None is recorded."), buttons);
  const running = run.status === "running";
  const step = Math.max(0, STEPS.indexOf(run.step));
  const facts = [run.requested_by ? `requested by ${run.requested_by}` : "", run.reason ? `reason: ${run.reason}` : "", `by ${run.holder}`];
  const progress = running
    ? [
        element("label", { for: "progress" }, `Step ${step + 1} of ${STEPS.length}: ${run.step}${run.progress ? `, ${run.progress}` : ""}`),
        element("progress", { id: "progress", max: STEPS.length, value: step }),
      ]
    : null;
  return section(
    "Retrain",
    element(
      "div",
      { class: `message ${OUTCOME[run.status] ?? "info"}` },
      element("strong", {}, running ? "Running" : `The last one: ${run.status}`),
      ` ${running ? "for" : "after"} ${duration(run.seconds)}, begun `,
      when(run.started),
      run.version ? `; version ${run.version}` : "",
      element("div", { class: "note" }, facts.filter(Boolean).join("; ")),
      run.error ? element("p", {}, run.error) : null,
      progress,
      run.gate ? gateVerdict(run.gate) : null,
    ),
    buttons,
  );
}

/** What the gate decided, with the numbers of the new version and of the live one. */
function gateVerdict(gate) {
  const metrics = Object.keys(gate.metrics.routed ?? {});
  return element(
    "div",
    { class: "stack" },
    element("p", {}, `The gate ${gate.decision} it: ${gate.cause}.`),
    table(
      "What users would get (routed)",
      [
        { label: "Metric", value: (name) => name },
        { label: "New", value: (name) => fraction(gate.metrics.routed[name]), number: true },
        { label: gate.live ? `Live: ${gate.live}` : "Live", value: (name) => fraction(gate.live_metrics.routed?.[name]), number: true },
      ],
      metrics,
    ),
  );
}

function versionTable(models, actions) {
  const engine = ENGINES.find((name) => models.versions.some((version) => version.metrics[name])) ?? "routed";
  const value = (version, name) => version.metrics[engine]?.[name];
  const columns = [
    {
      label: "Version",
      value: (version) => [element("span", { class: "nowrap" }, version.version), version.live ? [" ", element("span", { class: "badge good" }, "live")] : []].flat(2),
    },
    { label: "Made", value: (version) => element("span", { class: "nowrap" }, when(version.created)) },
    { label: "Events", value: (version) => number(version.events), number: true },
    { label: `${engine} NDCG@10`, value: (version) => fraction(value(version, FIRST_METRIC)), number: true },
    { label: "Recall@10", value: (version) => fraction(value(version, "recall@10")), number: true },
    { label: "Gate", value: verdict },
    {
      label: "Look and change",
      value: (version) =>
        element(
          "span",
          { class: "buttons inline" },
          element("a", { href: `#/models?report=${encodeURIComponent(version.version)}` }, "Report"),
          version.live ? null : button("Promote", () => actions.promote(version.version)),
        ),
    },
  ];
  return section("Versions", table("Published versions, newest first", columns, models.versions));
}

function verdict(version) {
  if (version.problem) return element("span", { class: "badge bad" }, version.problem);
  if (version.forced) return element("span", { class: "badge warn" }, "forced");
  return version.gate ? element("span", { class: `badge ${version.gate === "accepted" ? "good" : "warn"}` }, version.gate) : "–";
}

function fraction(value) {
  return value === null || value === undefined ? "–" : value.toFixed(4);
}

function showMetrics(select, versions) {
  const names = new Set(versions.flatMap((version) => Object.values(version.metrics).flatMap((values) => Object.keys(values))));
  if (names.size === select.options.length) return;
  const current = select.value || FIRST_METRIC;
  select.replaceChildren(...[...names].map((name) => element("option", { value: name, selected: name === current }, name)));
}

function timeLine(versions, metric, live) {
  const traces = ENGINES.filter((engine) => versions.some((version) => version.metrics[engine])).map((engine, index) => ({
    name: engine.replaceAll("_", " "),
    type: "scatter",
    mode: "lines+markers",
    x: versions.map((version) => version.created),
    y: versions.map((version) => version.metrics[engine]?.[metric] ?? null),
    text: versions.map((version) => version.version),
    hovertemplate: `%{y:.4f}<br>%{text}`,
    line: { color: colour(`--${engine}`), width: engine === "routed" ? 3 : 1.5 },
    marker: { symbol: SHAPES[index], size: 8 },
  }));
  const at = versions.find((version) => version.version === live)?.created;
  const mark = { type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line: { color: colour("--good"), dash: "dot", width: 2 } };
  const label = { x: at, yref: "paper", y: 1, text: "live", showarrow: false, yanchor: "bottom", font: { color: colour("--good") } };
  return [
    traces,
    {
      height: 320,
      margin: { t: 24, r: 12, b: 36, l: 52 },
      showlegend: true,
      legend: { orientation: "h", y: -0.15 },
      xaxis: { type: "date", range: period(versions) },
      yaxis: { title: { text: metric } },
      shapes: at ? [mark] : [],
      annotations: at ? [label] : [],
    },
  ];
}

/** From the first to the last version, with room beside them; an hour at least. */
function period(versions) {
  const [first, last] = [versions[0], versions.at(-1)].map((version) => new Date(version.created).getTime());
  const room = Math.max(0.05 * (last - first), 1_800_000);
  return [new Date(first - room), new Date(last + room)];
}

/**
 * The report of a version, in a frame with an origin of its own. Its text is asked for here, with
 * the key if one is needed, and posted to the frame, which can ask nothing itself.
 */
async function showReport(root, version, signal) {
  const frame = element("iframe", {
    class: "report",
    title: `Evaluation report of ${version}`,
    sandbox: "allow-scripts",
    src: new URL("./report-frame.html", import.meta.url).href,
  });
  const heading = section(`Evaluation report of ${version}`);
  root.replaceChildren(heading);
  let html;
  try {
    html = await (await request("GET", `api/models/${encodeURIComponent(version)}/report`, { accept: "text/html", signal })).text();
  } catch (error) {
    heading.append(failure(error));
    return;
  }
  addEventListener(
    "message",
    ({ source, data }) => {
      if (source === frame.contentWindow && data === "ready") source.postMessage(html, "*");
    },
    { signal },
  );
  heading.append(
    element("p", {}, element("a", { href: urlOf(`api/models/${encodeURIComponent(version)}/report`) }, "The report on a page of its own")),
    frame,
  );
  heading.scrollIntoView({ block: "start" });
}
