// The table of workers, fetched again every few seconds while one looks.
import { byId, getHtml } from "./dom.js";

const EVERY = 5000; // ms

setInterval(async () => {
  if (document.hidden || byId("workers").contains(document.activeElement)) return;
  try {
    const fresh = await getHtml(location.href);
    byId("workers").replaceChildren(...fresh.getElementById("workers").childNodes);
  } catch {
    // The next round tries again.
  }
}, EVERY);
