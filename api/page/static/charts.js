/**
 * Draws charts by Plotly, whose script (1.4 MB) is loaded when the first chart is drawn. Charts have
 * the page's colours, light and dark.
 */

import { element } from "./elements.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
let loading;

/** Plotly, loaded once. */
function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const src = new URL("./plotly.min.js", import.meta.url).href;
    const script = element("script", {
      src,
      onload: () => resolve(window.Plotly),
      onerror: () => reject(new Error("The chart library could not be loaded.")),
    });
    document.head.append(script);
  });
  return loading;
}

/** The value of a colour of the style sheet, such as "--als". */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function layoutOf(layout) {
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--ink"), family: "system-ui, sans-serif", size: 12 },
    margin: { t: 8, r: 12, b: 36, l: 44 },
    height: 220,
    showlegend: false,
    hovermode: "closest",
    ...layout,
    xaxis: { ...axis, ...layout.xaxis },
    yaxis: { ...axis, rangemode: "tozero", ...layout.yaxis },
  };
}

/**
 * An empty chart. `title` heads it; `describe(text)` sets what a screen reader says.
 * `draw(traces, layout)`: Plotly's traces and layout; a later call changes the chart. A colour may
 * be the name of a colour of the style sheet: see `colour`.
 */
export function chart(title, signal) {
  const plot = element("div", { class: "plot", role: "img", "aria-label": title });
  const root = element("figure", { class: "chart" }, element("figcaption", {}, title), plot);
  let latest = null;
  const render = async () => {
    if (latest === null) return;
    const library = await plotly();
    const [traces, layout] = latest();
    if (!signal.aborted && plot.isConnected)
      await library.react(plot, traces, layoutOf(layout), { displayModeBar: false, responsive: true });
  };
  dark.addEventListener("change", render, { signal });
  signal.addEventListener("abort", () => window.Plotly?.purge(plot));
  return {
    root,
    describe: (text) => plot.setAttribute("aria-label", `${title}: ${text}`),
    /** `make`: returns [traces, layout]; it is called again when the colours change. */
    draw: (make) => {
      latest = make;
      return render();
    },
  };
}
