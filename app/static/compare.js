// Jobs side by side: one chart of one kind of curve, images by one slider; tables are rendered by the server.
import { byId } from "./dom.js";
import { Chart } from "./charts.js";
import { Hints } from "./live.js";
import { replaceParts } from "./parts.js";

const COLOURS = ["--distilled", "--rded", "--patches", "--injection", "--ok", "--random", "--bad", "--warn"];
const DASHES = [undefined, [6, 3], [2, 3], [8, 3, 2, 3]];
const root = byId("compare");
const read = (name) => JSON.parse(byId("compared")?.dataset[name] ?? "[]");
let curves = read("curves");
let sheets = read("sheets");
const names = read("names");
const chart = byId("chart-compare") && new Chart("chart-compare", { x: "iteration or epoch", log: true });
const which = byId("chart-compare-of");

function showCurve() {
  const curve = curves.find((one) => one.name === which.value) ?? curves[0];
  chart.clear();
  chart.show(curve.series.map((_, index) => ({ name: `${curve.name} ${index}`, title: `${"ABCDEFGH"[index]} ${names[index]}`, colour: COLOURS[index], dash: DASHES[index % DASHES.length], scale: curve.name.endsWith("top1") ? "pct" : "y" })));
  for (const [index, points] of curve.series.entries()) chart.add(`${curve.name} ${index}`, points);
}

/** Every strip at the sheet that is nearest to this share of its own recovery. */
function showShare() {
  const share = byId("share").value / 100;
  byId("share-now").textContent = `${byId("share").value} %`;
  for (const image of document.querySelectorAll("[data-strip]")) {
    const own = sheets[image.dataset.strip];
    const sheet = own.reduce((best, one) => (far(one, share) < far(best, share) ? one : best));
    if (image.getAttribute("src") !== sheet.url) image.src = sheet.url;
    document.querySelector(`[data-at="${image.dataset.strip}"]`).textContent = `Iteration ${sheet.x} of ${sheet.total}`;
  }
}

const far = (sheet, share) => Math.abs(sheet.x / Math.max(sheet.total, 1) - share);

async function refresh() {
  const fresh = await replaceParts(root);
  const now = fresh.getElementById("compared");
  if (now && chart) {
    [curves, sheets] = [JSON.parse(now.dataset.curves), JSON.parse(now.dataset.sheets)];
    showCurve();
  }
}

if (chart) {
  which.replaceChildren(...curves.map((curve) => new Option(curve.title, curve.name)));
  which.hidden = curves.length < 2;
  which.addEventListener("change", showCurve);
  showCurve();
}
byId("share")?.addEventListener("input", showShare);
if (root.dataset.over !== "true") {
  const ids = new Set(root.dataset.ids.split(","));
  new Hints({ badge: byId("fresh"), refresh, about: (id) => ids.has(id), pause: 2000 }).start();
}
root.dataset.ready = "";
