// The list keeps itself fresh, and jobs that were chosen stay chosen: a hint that something changed, then the table anew.
import { byId, getHtml } from "./dom.js";
import { Hints } from "./live.js";

const list = byId("jobs");
const boxes = () => [...list.querySelectorAll('input[name="id"]')];

/** The bar of what can be done to the chosen jobs; it is there once there are some, and moves nothing. */
function showBar() {
  const bar = byId("bulk-bar");
  if (!bar) return;
  const chosen = boxes().filter((box) => box.checked).length;
  bar.hidden = chosen === 0;
  byId("bulk-count").textContent = `${chosen} ${chosen === 1 ? "job" : "jobs"} chosen`;
  byId("bulk-all").textContent = chosen === boxes().length ? "Choose none" : "Choose all here";
}

list.addEventListener("change", showBar);
list.addEventListener("click", (event) => {
  if (event.target.id !== "bulk-all") return;
  const wanted = boxes().some((box) => !box.checked);
  for (const box of boxes()) box.checked = wanted;
  showBar();
});

/** Rows are replaced one by one: not the one under the pointer, nor the one that has the focus. */
async function refresh() {
  const address = new URL(location.href);
  address.searchParams.set("part", "true");
  const fresh = await getHtml(address);
  const body = list.querySelector("tbody");
  const rows = fresh.querySelector("tbody");
  if (!body || !rows) {
    if (!list.contains(document.activeElement)) list.replaceChildren(...fresh.body.childNodes);
    showBar();
    return;
  }
  const chosen = new Set(boxes().filter((box) => box.checked).map((box) => box.value));
  const wanted = [...rows.rows].map((row) => {
    const old = byId(row.id);
    const busy = old && (old.matches(":hover") || old.contains(document.activeElement));
    return busy || old?.innerHTML === row.innerHTML ? old : row;
  });
  const moves = wanted.some((row, index) => row.id !== body.rows[index]?.id) || wanted.length !== body.rows.length;
  if (moves && body.matches(":hover")) {
    body.addEventListener("pointerleave", () => refresh().catch(() => {}), { once: true }); // nothing moves under the pointer
    for (const row of wanted) if (byId(row.id) && byId(row.id) !== row) byId(row.id).replaceWith(row);
  } else if (moves) body.replaceChildren(...wanted);
  else for (const [index, row] of wanted.entries()) if (row !== body.rows[index]) body.rows[index].replaceWith(row);
  for (const box of boxes()) if (chosen.has(box.value)) box.checked = true;
  showBar();
}

showBar();
new Hints({ badge: byId("fresh"), refresh }).start();
