// The visible landmarks, headings and controls of a page in their order, a line each.
// A box has its left and right edge in twelfths of the window; digits are a #. Heights and fonts differ between machines.
() => {
  const BOXES = "header, nav, main, footer, aside, section, form, figure, dialog[open], .chart, .card";
  const NAMES = "h1, h2, h3, table, summary, button, input, select, textarea, [role=img]";
  const twelfth = (pixels) => Math.round((12 * pixels) / innerWidth);
  const clean = (text) => text.replace(/\s+/g, " ").replace(/\d[\d.,:–-]*/g, "#").trim();
  const label = (element) => {
    const ids = element.getAttribute("aria-labelledby")?.split(" ") ?? [];
    const named = ids.map((id) => document.getElementById(id)?.textContent ?? "").join(" ");
    return clean(named || element.ariaLabel || element.labels?.[0]?.textContent || "");
  };
  const lines = [];
  const visit = (element, depth) => {
    if (!element.checkVisibility({ visibilityProperty: true })) return;
    const kind = element.role ?? element.tagName.toLowerCase();
    const isBox = element.matches(BOXES);
    const parts = [kind, label(element)];
    if (isBox) {
      const { left, right } = element.getBoundingClientRect();
      parts.push(`${twelfth(left)}-${twelfth(right)}`);
    } else if (!parts[1]) {
      parts[1] = clean(element.matches("table") ? "" : element.textContent);
    }
    if (isBox || element.matches(NAMES)) lines.push("  ".repeat(depth) + parts.filter(Boolean).join(" "));
    for (const child of element.children) visit(child, depth + isBox);
  };
  visit(document.body, 0);
  return lines;
}
