/** Experiments: the variants of each with users, outcomes, intervals and the verdict. */

import { chart, colour } from "./charts.js";
import { element, field, message, number, percent, section, table, when } from "./elements.js";
import { curl, get } from "./http.js";

/** Verdict -> how it is shown. */
const KINDS = { better: "good", worse: "bad", broken: "bad", early: "warn" };

export async function render(root, { query, signal }) {
  const detect = query.get("detect") ?? "0.1";
  const form = element(
    "form",
    {
      class: "row",
      onsubmit: (event) => {
        event.preventDefault();
        const value = new FormData(event.target).get("detect");
        location.hash = `#/experiments?detect=${encodeURIComponent(value)}`;
      },
    },
    field("Difference that matters, relative to the control", {
      id: "detect",
      name: "detect",
      type: "number",
      min: "0.01",
      max: "10",
      step: "0.01",
      value: detect,
      required: true,
    }),
    element("button", { type: "submit" }, "Compare"),
  );
  root.append(form);
  const { experiments, at } = await get("api/experiments", { query: { detect }, signal });
  root.append(element("p", { class: "note" }, "Counted until ", when(at), "."));
  if (!experiments.length) {
    root.append(
      message(
        "info",
        "No experiment is configured, and none has numbers. EXPERIMENTS_PATH names a file of experiments: docs/experiments-guide.md.",
      ),
    );
  }
  for (const experiment of experiments) root.append(view(experiment, signal));
  root.append(
    section("The same as a command", element("pre", {}, curl("GET", `api/experiments?detect=${detect}`))),
  );
}

function view(experiment, signal) {
  const about = [
    experiment.configured ? "running" : "no longer configured",
    experiment.use_cases.length ? experiment.use_cases.join(", ") : "every use case",
    experiment.outcomes.length ? `outcomes: ${experiment.outcomes.join(", ")}` : "every event is an outcome",
  ];
  const compared = experiment.variants.slice(1);
  const plot = compared.some((row) => row.difference) ? differences(experiment, compared, signal) : null;
  return section(
    `${experiment.experiment} (${experiment.tag})`,
    element("p", { class: "note" }, about.join(" · "), experiment.since ? " · since " : "", experiment.since ? when(experiment.since) : ""),
    ...compared.map((row) =>
      element("p", { class: `message ${KINDS[row.verdict] ?? ""}` }, element("strong", {}, row.variant), `: ${row.sentence}.`),
    ),
    table("Variants", columns(), experiment.variants),
    plot,
    warning(experiment),
  );
}

function columns() {
  return [
    { label: "variant", value: (row) => row.variant },
    { label: "users", number: true, value: (row) => number(row.exposed_users) },
    { label: "answers", number: true, value: (row) => number(row.answers) },
    { label: "with outcome", number: true, value: (row) => number(row.users_with_outcome) },
    { label: "share, %", number: true, value: (row) => interval(row.share, 100, 1) },
    { label: "to control, points", number: true, value: (row) => interval(row.difference, 100, 1, true) },
    { label: "mean weight", number: true, value: (row) => interval(row.mean_weight, 1, 2) },
    { label: "settings", value: (row) => settings(row.overrides) },
  ];
}

function settings(overrides) {
  const texts = Object.entries(overrides).map(([name, value]) => `${name} = ${JSON.stringify(value)}`);
  return texts.length ? texts.join(", ") : "as configured";
}

function interval(estimate, scale, digits, signed = false) {
  if (!estimate) return "–";
  const format = (value) => `${signed && value > 0 ? "+" : ""}${(scale * value).toFixed(digits)}`;
  return `${format(estimate.value)} [${format(estimate.low)}, ${format(estimate.high)}]`;
}

function differences(experiment, rows, signal) {
  const shown = rows.filter((row) => row.difference);
  const drawing = chart("Difference to the control, in points, with its interval", signal);
  drawing.describe(shown.map((row) => `${row.variant} ${interval(row.difference, 100, 1, true)}`).join("; "));
  const points = (pick) => shown.map(({ difference }) => 100 * pick(difference));
  queueMicrotask(() =>
    drawing.draw(() => [
      [
        {
          type: "scatter",
          mode: "markers",
          x: points((estimate) => estimate.value),
          y: shown.map((row) => row.variant),
          marker: { size: 10, color: colour("--accent") },
          error_x: {
            type: "data",
            symmetric: false,
            array: points((estimate) => estimate.high - estimate.value),
            arrayminus: points((estimate) => estimate.value - estimate.low),
            color: colour("--accent"),
          },
          hovertemplate: "%{y}: %{x:.2f} points<extra></extra>",
        },
      ],
      {
        height: Math.max(220, 90 + 34 * shown.length),
        xaxis: { rangemode: "tozero", zerolinecolor: colour("--soft"), zerolinewidth: 2 },
        yaxis: { type: "category", rangemode: "normal" },
      },
    ]),
  );
  return drawing.root;
}

function warning(experiment) {
  const excluded = experiment.variants.reduce((sum, row) => sum + row.unexposed_users, 0);
  const counted = experiment.variants.some((row) => row.exposed_users);
  const linked = experiment.variants.some((row) => Object.keys(row.events).length);
  const texts = [];
  if (excluded) texts.push(`${number(excluded)} users with an outcome are not counted: no exposure of theirs is recorded.`);
  if (counted && !linked)
    texts.push("No event has a recommendation_id of this experiment yet: check that clients send it and ingest has EXPERIMENTS_PATH.");
  if (experiment.balance_chance !== null && experiment.balance_chance < 0.001)
    texts.push(`The numbers of users do not fit the variants' weights (a chance of ${percent(experiment.balance_chance)}).`);
  return texts.length ? message("warn", texts.join(" ")) : null;
}
