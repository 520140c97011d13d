// The list of presets, narrowed down while one chooses; without scripts the server does the same.
import { byId } from "./dom.js";

export function filterPresets() {
  const filters = byId("preset-filters");
  const rows = [...document.querySelectorAll(".preset-list li")];
  const show = () => {
    const wanted = [...new FormData(filters)].filter(([, value]) => value);
    for (const row of rows) row.hidden = !wanted.every(([name, value]) => row.dataset[name] === value);
    const shown = rows.filter((row) => !row.hidden).length;
    byId("preset-count").textContent = shown ? `${shown} of ${rows.length}` : "None: choose any of one of them.";
  };
  filters.addEventListener("change", show);
  filters.addEventListener("submit", (event) => event.preventDefault());
  show();
}
