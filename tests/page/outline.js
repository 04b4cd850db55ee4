// The visible landmarks, headings and controls of a page in their order, a line each; equal ones that follow each other
// are one line, as in the rows of a table.
// A box has its left and right edge in twelfths of the window; digits are a #. Heights and fonts differ between machines.
() => {
  const BOXES = "header, main, footer, aside, section, form, figure, dialog[open], .chart, .card";
  const NAMES = "nav, h1, h2, h3, table, summary, button, input, select, textarea, [role=img]";
  const twelfth = (pixels) => Math.round((12 * pixels) / innerWidth);
  const clean = (text) => text.replace(/\s+/g, " ").replace(/\d[\d.,:–-]*/g, "#").trim();
  const texts = (element) => [...(element?.childNodes ?? [])].filter((node) => node.nodeType === Node.TEXT_NODE).map((node) => node.data).join("");
  const label = (element) => {
    const ids = element.getAttribute("aria-labelledby")?.split(" ") ?? [];
    const named = ids.map((id) => document.getElementById(id)?.textContent ?? "").join(" ");
    const text = clean(named || element.ariaLabel || texts(element.labels?.[0]));
    return element.role === "img" ? text.split(": ")[0] : text; // the rest are its numbers
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
    const line = "  ".repeat(depth) + parts.filter(Boolean).join(" ");
    if ((isBox || element.matches(NAMES)) && line !== lines.at(-1)) lines.push(line);
    for (const child of element.children) visit(child, depth + isBox);
  };
  visit(document.body, 0);
  return lines;
}
