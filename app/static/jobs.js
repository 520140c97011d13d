// The list keeps itself fresh: a hint that something changed, then the table as the server renders it.
import { byId, debounced } from "./dom.js";

const list = byId("jobs");
const badge = byId("fresh");
const POLL_EVERY = 10_000; // ms, where the stream does not pass
let source = null;
let timer = 0;

function show(state) {
  badge.hidden = false;
  badge.dataset.state = badge.textContent = state;
}

/** Rows are replaced one by one: not the one under the pointer, nor the one that has the focus. */
async function refresh() {
  const address = new URL(location.href);
  address.searchParams.set("part", "true");
  const response = await fetch(address, { credentials: "same-origin" });
  if (!response.ok) return;
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  const body = list.querySelector("tbody");
  const rows = fresh.querySelector("tbody");
  if (!body || !rows) {
    if (!list.contains(document.activeElement)) list.replaceChildren(...fresh.body.childNodes);
    return;
  }
  const wanted = [...rows.rows].map((row) => {
    const old = byId(row.id);
    const busy = old && (old.matches(":hover") || old.contains(document.activeElement));
    return busy || old?.innerHTML === row.innerHTML ? old : row;
  });
  if (wanted.some((row, index) => row !== body.rows[index]) || wanted.length !== body.rows.length) body.replaceChildren(...wanted);
}

const soon = debounced(400, () => refresh().catch(() => show("offline")));

function poll() {
  clearInterval(timer);
  timer = setInterval(() => refresh().then(() => show("polling"), () => show("offline")), POLL_EVERY);
}

function listen() {
  source?.close();
  clearInterval(timer);
  if (document.hidden) return;
  source = new EventSource("/api/v1/stream");
  source.onopen = () => {
    clearInterval(timer);
    show("live");
    soon();
  };
  source.onerror = () => {
    show("offline");
    if (source.readyState === EventSource.CLOSED) poll();
  };
  source.addEventListener("job", soon);
  source.onmessage = soon;
}

document.addEventListener("visibilitychange", listen);
addEventListener("pagehide", () => source?.close());
addEventListener("pageshow", (event) => event.persisted && listen());
listen();
