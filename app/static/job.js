// The page of one job: what is rendered by the server is fetched again when it changed; curves, images and log grow here.
import { byId, debounced, getJson, say } from "./dom.js";
import { Curves } from "./curves.js";
import { Images } from "./images.js";
import { Live } from "./live.js";
import { Log } from "./log.js";

const root = byId("job");
const base = root.dataset.base;
const isOver = ["succeeded", "failed", "cancelled"].includes(root.dataset.state);
const CONTROLS = ["cancel", "pause", "resume", "retry", "change"]; // what people did
const LOGGED = ["job", "step", ...CONTROLS, "started", "injection", "checkpoint", "log"];

const curves = new Curves(base, {
  iterations: Number(root.dataset.iterations),
  teacherEpochs: Number(root.dataset.teacherEpochs),
  epochs: Number(root.dataset.epochs),
});
const images = new Images(base, isOver);
const log = new Log(base);

/** The row of a step in the server's table: it knows key, kind and title of every step. */
function stepOf(id) {
  const row = document.querySelector(`tr[data-step="${id}"]`);
  return row && { key: row.dataset.key, kind: row.dataset.kind, title: row.cells[1].firstChild.textContent.trim(), row };
}

function stepByKey(key) {
  const row = document.querySelector(`tr[data-key="${key}"]`);
  return row && stepOf(row.dataset.step);
}

/** Put newly rendered parts in the place of the old ones; what was open stays open, what had the focus keeps it. */
function replaceParts(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  for (const part of fresh.querySelectorAll("[data-live]")) {
    const old = root.querySelector(`[data-live="${part.dataset.live}"]`);
    if (!old || old.innerHTML === part.innerHTML) continue;
    const open = [...old.querySelectorAll("details[open]")].map((details) => details.id).filter(Boolean);
    const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
    const scrolled = [...old.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
    old.replaceChildren(...part.childNodes);
    for (const id of open) byId(id)?.setAttribute("open", "");
    old.querySelectorAll(".scroll").forEach((box, index) => {
      if (scrolled[index]) [box.scrollLeft, box.scrollTop] = scrolled[index];
    });
    if (focused) byId(focused)?.focus({ preventScroll: true });
    for (const element of old.querySelectorAll("[data-needs-js]")) element.hidden = false;
  }
}

let refreshing = false;
const refresh = debounced(400, async () => {
  if (refreshing) return refresh();
  refreshing = true;
  try {
    const response = await fetch(`${location.pathname}/parts`, { credentials: "same-origin" });
    if (response.ok) replaceParts(await response.text());
  } catch {
    setTimeout(refresh, 3000);
  } finally {
    refreshing = false;
  }
});

/** Progress comes twice a second: it moves what is there, and asks the server for nothing. */
function showProgress({ step_id: id, data }) {
  const step = stepOf(id);
  if (!step) return;
  const { done, total, unit } = data;
  step.row.querySelector("[data-done]").textContent = `${done.toLocaleString("en")} / ${total.toLocaleString("en")} ${unit}`;
  step.row.dataset.share = total ? done / total : 0;
  const rows = [...document.querySelectorAll(`tr[data-kind="${step.kind}"]`)];
  const share = rows.reduce((sum, row) => sum + shareOf(row), 0) / rows.length;
  const stage = document.querySelector(`[data-stage="${step.kind}"]`);
  stage.querySelector("progress").value = share;
  if (stage.classList.contains("running")) stage.querySelector("[data-fact]").textContent = `${Math.floor(100 * share)} %`;
}

function shareOf(row) {
  if (row.dataset.share !== undefined) return Number(row.dataset.share);
  if (row.querySelector(".state.succeeded")) return 1;
  const [done, total] = row.querySelector("[data-done]").textContent.replaceAll(",", "").split("/").map((part) => parseFloat(part));
  return total ? done / total : 0;
}

const on = (kind, action) => document.addEventListener(`fadrm:${kind}`, (event) => action(event.detail));

on("metrics", ({ data }) => {
  const step = stepByKey(data.key);
  if (step) curves.step(data.key, step.kind, step.title);
  curves.add(data.key, data.points);
});
on("injection", ({ step_id: id, data }) => {
  const step = stepOf(id);
  if (!step) return;
  curves.step(step.key, step.kind, step.title);
  curves.mark(step.key, data);
  images.mark(step.key, data);
});
on("preview", ({ data }) => {
  const url = data.url ?? `/api/v1/previews/${data.sha256}`;
  images.add(stepByKey(data.key) ?? { key: data.key, kind: "", title: "" }, { ...data, url });
});
on("progress", showProgress);
on("any", ({ kind }) => {
  if (LOGGED.includes(kind)) log.news();
});
for (const kind of ["job", "step", ...CONTROLS, "started"]) on(kind, refresh);
on("step", ({ data }) => {
  if (data.state === "succeeded" && data.kind === "teach") curves.refreshResults();
});
on("job", ({ data }) => say(`The job is ${data.state}.`));
on("end", () => {
  images.over();
  refresh();
  getJson(base).then((job) => say(job.sentence), () => {});
});
on("reset", () => location.reload());

const live = new Live({
  stream: `${base}/events/stream`,
  events: `${base}/events`,
  seq: Number(root.dataset.seq),
  badge: byId("fresh"),
});

/** Marks first, so that the images know where they lie; whatever happens meanwhile comes again by the stream. */
async function begin() {
  try {
    await curves.load();
    for (const [key, step] of curves.steps) for (const mark of step.marks.values()) images.mark(key, mark);
    await images.load();
    root.dataset.ready = "";
  } catch {
    setTimeout(begin, 3000); // the page reads without it meanwhile
  }
}

await begin();
if (!isOver) live.start();
