/** Now: events, lag, answers, dead letters, memory and processes, once a second. */

import { chart, colour } from "./charts.js";
import {
  bytes,
  duration,
  element,
  figure,
  figures,
  message,
  milliseconds,
  number,
  percent,
  section,
  table,
} from "./elements.js";
import { listen } from "./http.js";

/** Seconds that the charts show. */
const SHOWN_S = 300;
const ENGINES = ["ensemble", "als", "two_tower", "content_based", "popular"];

/** The samples of the last SHOWN_S, which other views in between do not clear. */
const past = [];

/** See app.js. */
export async function render(root, { signal }) {
  const state = element("div", { "aria-live": "polite" });
  const key = element("div");
  const flow = chart("Events and answers a second", signal);
  const times = chart("Time to answer", signal);
  const details = element("div");
  root.append(
    state,
    key,
    element("div", { class: "charts" }, flow.root, times.root),
    details,
  );
  let connection = "Connecting.";
  let said = "";

  const say = (now) => {
    const kind = connection ? "warn" : now.missing.length ? "bad" : "good";
    const text = connection || (now.missing.length ? "" : "Every part works.");
    const causes = connection ? [] : causesOf(now.missing);
    const sentence = [kind, text, ...causes].join();
    if (sentence === said) return;
    said = sentence;
    state.replaceChildren(message(kind, text, ...causes.map((cause) => element("div", {}, cause))));
  };

  await listen("api/live", {
    signal,
    onState: (cause) => {
      connection = cause;
      say({ missing: [] });
    },
    onMessage: (now) => {
      past.push(now);
      while (past[0].at < now.at - SHOWN_S) past.shift();
      say(now);
      key.replaceChildren(keyFigures(now));
      details.replaceChildren(...tables(now));
      drawFlow(flow, past);
      drawTimes(times, past);
    },
  });
}

/** One sentence for all parts with the same cause. */
function causesOf(missing) {
  const parts = new Map();
  for (const { part, cause } of missing) parts.set(cause, [...(parts.get(cause) ?? []), part]);
  return [...parts].map(([cause, names]) => `${names.join(", ")}: ${cause}`);
}

function keyFigures(now) {
  const { events, answers, probe, redis } = now;
  const lagging = events?.lag > 1000;
  return figures(
    figure("Events in", perSecond(events?.per_second), "messages applied to the state"),
    figure(
      "Behind the log",
      events ? `${number(events.lag)} messages` : "–",
      events?.latest_age_s === null || !events ? "no event yet" : `newest applied event: ${duration(events.latest_age_s)} ago`,
      lagging ? "warn" : null,
    ),
    figure("From write to answer", milliseconds(probe.p50_ms), probeNote(probe), probe.lost ? "warn" : null),
    figure("Answers", perSecond(answers.per_second), answers.p50_ms === null ? "none in the last minute" : `half within ${milliseconds(answers.p50_ms)}, 99% within ${milliseconds(answers.p99_ms)}`),
    figure("Degraded", percent(answers.degraded_share), "of personal answers, last minute", answers.degraded_share > 0 ? "bad" : null),
    figure("Stale", percent(answers.stale_share), "of reads that wait for a write", answers.stale_share > 0 ? "warn" : null),
    figure(
      "Dead letters",
      now.dead_letters ? number(now.dead_letters.total) : "–",
      "of the last day",
      now.dead_letters?.total ? "warn" : null,
    ),
    figure("Redis", bytes(redis?.used_bytes), memoryNote(redis), memoryState(redis)),
    figure("Model", now.model_version ?? "none", `${number(now.catalogue_items)} items in the catalogue`, now.model_version ? null : "warn"),
  );
}

function perSecond(value) {
  return value === null || value === undefined ? "–" : `${number(value)} /s`;
}

function probeNote(probe) {
  if (probe.off) return `not measured: ${probe.off}`;
  if (!probe.count && !probe.lost) return "being measured";
  const lost = probe.lost ? `, ${probe.lost} lost` : "";
  return `median; 99% within ${milliseconds(probe.p99_ms)}; ${probe.count} own writes in the last minute${lost}`;
}

function memoryNote(redis) {
  if (!redis) return "not known";
  const limit = redis.limit_bytes ? `of ${bytes(redis.limit_bytes)}` : "no limit is set";
  if (redis.growth_bytes_per_day === null) return limit;
  const growth = `${limit}; users add ${bytes(redis.growth_bytes_per_day)} a day`;
  return redis.days_left === null ? growth : `${growth}: full in ${number(redis.days_left)} days`;
}

function memoryState(redis) {
  if (!redis?.limit_bytes) return null;
  const full = redis.used_bytes / redis.limit_bytes;
  if (full > 0.95 || (redis.days_left !== null && redis.days_left < 3)) return "bad";
  return full > 0.8 || (redis.days_left !== null && redis.days_left < 14) ? "warn" : null;
}

function tables(now) {
  const engines = Object.entries(now.answers.by_engine).sort((one, other) => other[1] - one[1]);
  const total = engines.reduce((sum, [, count]) => sum + count, 0);
  const letters = Object.entries(now.dead_letters?.by_code ?? {});
  return [
    element(
      "div",
      { class: "columns" },
      section(
        "Who answers",
        table(
          "Personal answers of the last minute",
          [
            { label: "Engine", value: ([name]) => engineName(name) },
            { label: "Answers", value: ([, count]) => number(count), number: true },
            { label: "Share", value: ([, count]) => percent(count / total), number: true },
          ],
          engines,
        ),
      ),
      section(
        "Dead letters",
        table(
          "Messages of the last day that were no valid event",
          [
            { label: "Reason", value: ([code]) => code },
            { label: "Letters", value: ([, count]) => number(count), number: true },
          ],
          letters,
          now.dead_letters ? "none" : "not known",
        ),
        letters.length ? element("p", {}, element("a", { href: "#/dead-letters" }, "Look at them")) : null,
      ),
      section(
        "Processes",
        table(
          "Processes beside the API",
          [
            { label: "Process", value: (process) => process.kind },
            { label: "Name", value: (process) => process.name },
          ],
          now.processes ?? [],
          now.processes ? "none is seen" : "not known",
        ),
      ),
      section(
        "Lag by partition",
        table(
          "Messages of the log that are not in the state yet",
          [
            { label: "Partition", value: (row) => `${row.topic}/${row.partition}` },
            { label: "Position", value: (row) => number(row.position), number: true },
            { label: "Log's end", value: (row) => number(row.end), number: true },
            { label: "Lag", value: (row) => number(row.lag), number: true },
          ],
          now.events?.partitions ?? [],
          now.events ? "no topic is known yet" : "not known: Redis is away",
        ),
      ),
    ),
    element(
      "p",
      { class: "note" },
      `Answers, degraded and stale are of the last ${duration(now.answers.seconds)}. `,
      now.listeners === 1 ? "You alone look at this server." : `${now.listeners} pages look at this server.`,
    ),
  ];
}

function engineName(name) {
  const dot = element("span", { class: `dot ${ENGINES.includes(name) ? name : "routed"}`, "aria-hidden": "true" });
  return element("span", {}, dot, name.replaceAll("_", " "));
}

function drawFlow(target, past) {
  const at = past.map((now) => new Date(now.at * 1000));
  const events = past.map((now) => now.events?.per_second ?? null);
  const answers = past.map((now) => now.answers.per_second);
  target.describe(`now ${number(events.at(-1))} events and ${number(answers.at(-1))} answers a second`);
  target.draw(() => [
    [line("events", at, events, "--als"), line("answers", at, answers, "--ensemble", "dot")],
    { showlegend: true, legend: { orientation: "h", y: 1.15 }, xaxis: timeAxis(past) },
  ]);
}

function drawTimes(target, past) {
  const at = past.map((now) => new Date(now.at * 1000));
  const probe = past.map((now) => now.probe.latest_ms);
  const answers = past.map((now) => now.answers.p99_ms);
  target.describe(`from write to answer ${milliseconds(probe.at(-1))}; 99% of answers within ${milliseconds(answers.at(-1))}`);
  target.draw(() => [
    [line("from write to answer", at, probe, "--two_tower"), line("answers, 99%", at, answers, "--ensemble", "dot")],
    { showlegend: true, legend: { orientation: "h", y: 1.15 }, xaxis: timeAxis(past), yaxis: { ticksuffix: " ms" } },
  ]);
}

function line(name, x, y, colourName, dash = "solid") {
  return { name, x, y, type: "scatter", mode: "lines", line: { color: colour(colourName), dash, width: 2 } };
}

function timeAxis(past) {
  const end = past.at(-1).at * 1000;
  const start = Math.min(past[0].at * 1000, end - 60_000);
  return { type: "date", range: [new Date(start), new Date(end)], tickformat: "%H:%M:%S", nticks: 5 };
}
