import { message } from "./elements.js";

/** See app.js. */
export function render(root) {
  root.append(message("info", "This view follows."));
}
