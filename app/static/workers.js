// The table of workers, fetched again every few seconds while one looks.
import { byId } from "./dom.js";

const EVERY = 5000; // ms

setInterval(async () => {
  if (document.hidden || byId("workers").contains(document.activeElement)) return;
  try {
    const response = await fetch(location.href, { credentials: "same-origin" });
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html").getElementById("workers");
    if (fresh) byId("workers").replaceChildren(...fresh.childNodes);
  } catch {
    // The next round tries again.
  }
}, EVERY);
