"use strict";
// Draws the charts of the page by Plotly, in the colours of its style sheet, on a screen and on paper.
(() => {
  const PAPER_WIDTH = 310; // pixels: two charts side by side on A4 and on Letter
  const root = document.documentElement;
  const charts = [...document.querySelectorAll(".chart")].map((chart) => ({
    chart,
    place: chart.querySelector(".plot"),
    figure: JSON.parse(chart.querySelector("script").textContent),
  }));

  function colored(value, style) {
    if (typeof value === "string") {
      const name = /^var\((--[\w-]+)\)$/.exec(value)?.[1];
      return name ? style.getPropertyValue(name).trim() : value;
    }
    if (Array.isArray(value)) return value.map((entry) => colored(entry, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, colored(entry, style)]));
  }

  function draw(width) {
    const style = getComputedStyle(root);
    for (const { chart, place, figure } of charts) {
      const { data, layout } = colored(figure, style);
      Plotly.react(place, data, { ...layout, width, autosize: width === undefined },
        { displayModeBar: false, responsive: true });
      chart.classList.add("drawn");
    }
  }

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  addEventListener("beforeprint", () => {
    root.classList.add("paper");
    draw(PAPER_WIDTH);
  });
  addEventListener("afterprint", () => {
    root.classList.remove("paper");
    draw();
  });
})();
