/** Shows the report that the page posts. Runs in an origin of its own, from which nothing is sent. */
addEventListener("message", ({ data, source }) => {
  if (source !== parent || typeof data !== "string") return;
  document.open();
  document.write(data);
  document.close();
});
parent.postMessage("ready", "*");
