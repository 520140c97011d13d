// One sweep: its plot, and news of its jobs until all have ended.
import { byId, colour, getHtml, make, number } from "./dom.js";
import { Hints } from "./live.js";

const { default: UPlot } = await import(byId("uplot").href);

const COLOURS = ["--distilled", "--rded", "--patches", "--injection", "--ok", "--random"];
const DASHES = [undefined, [6, 3], [2, 3]];
const FONT = "11px Liberation Sans, Arial, sans-serif";
const PAUSE = 1500; // ms, between two looks, however many jobs change
const HEIGHT = 300; // px
let plot = null;

const styleOf = (index) => ({ colour: colour(COLOURS[index % COLOURS.length]), dash: DASHES[Math.floor(index / COLOURS.length) % DASHES.length] });

/** uPlot's rows, places on x in order; bars stand at 0, 1, 2, ... */
function dataOf({ numbers, titles, series }) {
  const order = titles.map((_, place) => place);
  if (numbers) order.sort((a, b) => numbers[a] - numbers[b]);
  const rows = series.map(({ points }) => new Map(points.map(([place, mean, std]) => [place, { mean, std }])));
  const xs = order.map((place, index) => (numbers ? numbers[place] : index));
  const pick = (name) => rows.map((row) => order.map((place) => row.get(place)?.[name] ?? null));
  return { xs, means: pick("mean"), spreads: pick("std"), labels: order.map((place) => titles[place]) };
}

/** Bars begin at 0: a cut one would say more than it knows. */
function rangeOf({ means, spreads }, bars) {
  const ends = means.flatMap((row, index) => row.flatMap((mean, at) => (mean === null ? [] : [mean - (spreads[index][at] ?? 0), mean + (spreads[index][at] ?? 0)])));
  if (!ends.length) return [0, 100];
  const room = Math.max((Math.max(...ends) - Math.min(...ends)) * 0.1, 1);
  return [bars ? 0 : Math.max(0, Math.min(...ends) - room), Math.min(100, Math.max(...ends) + room)];
}

/** Bars where x is made of words, and the spread of the runs in any case. */
function drawOver(drawn, data, bars) {
  const { ctx: context, bbox } = drawn;
  const ratio = devicePixelRatio;
  const group = (bbox.width / data.xs.length) * 0.8;
  const width = group / data.means.length;
  context.save();
  data.means.forEach((row, index) => {
    const { colour: ink } = styleOf(index);
    row.forEach((mean, at) => {
      if (mean === null) return;
      let x = drawn.valToPos(data.xs[at], "x", true);
      const y = drawn.valToPos(mean, "y", true);
      if (bars) {
        x += (index + 0.5) * width - group / 2;
        context.fillStyle = ink;
        context.globalAlpha = 0.75;
        context.fillRect(x - width * 0.45, y, width * 0.9, bbox.top + bbox.height - y);
        context.globalAlpha = 1;
      }
      spread(context, x, [-1, 1].map((side) => drawn.valToPos(mean + side * (data.spreads[index][at] ?? 0), "y", true)), bars ? colour("--ink") : ink, ratio);
    });
  });
  context.restore();
}

function spread(context, x, [low, high], ink, ratio) {
  if (low === high) return;
  context.strokeStyle = ink;
  context.lineWidth = 1.5 * ratio;
  context.beginPath();
  for (const y of [low, high]) {
    context.moveTo(x - 4 * ratio, y);
    context.lineTo(x + 4 * ratio, y);
  }
  context.moveTo(x, low);
  context.lineTo(x, high);
  context.stroke();
}

function draw() {
  const root = byId("plot");
  if (!root) return;
  plot?.destroy();
  plot = null;
  const told = JSON.parse(root.dataset.plot);
  const data = dataOf(told);
  root.hidden = byId("legend").hidden = !data.means.some((row) => row.some((mean) => mean !== null));
  if (root.hidden) return;
  const bars = !told.numbers;
  const line = { stroke: colour("--ink-3"), font: FONT, grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), size: 4 } };
  const last = data.xs.length - 1;
  const room = bars ? 0.5 : Math.max((data.xs[last] - data.xs[0]) * 0.05, last ? 0 : 0.5);
  const ofX = bars ? { splits: () => data.xs, values: () => data.labels, grid: { show: false } } : { splits: () => data.xs, values: (_, splits) => splits.map((value) => number(value, 3)) };
  plot = new UPlot({
    width: root.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    padding: [10, 12, 0, 0],
    scales: { x: { time: false, range: [data.xs[0] - room, data.xs[last] + room] }, y: { range: rangeOf(data, bars) } },
    axes: [{ ...line, ...ofX, label: told.x, labelFont: FONT, labelSize: 18, size: 30 }, { ...line, size: 46 }],
    series: [{}, ...data.means.map((_, index) => {
      const { colour: stroke, dash } = styleOf(index);
      return { stroke, dash, width: 2, spanGaps: true, paths: bars ? () => null : undefined, points: { show: !bars, size: 6, fill: stroke } };
    })],
    hooks: { draw: [(drawn) => drawOver(drawn, data, bars)] },
  }, [data.xs, ...data.means], root);
  byId("legend").replaceChildren(...told.series.map((one, index) => make("span", {}, swatch(styleOf(index)), one.title)));
  root.dataset.drawn = "true";
}

function swatch({ colour: stroke, dash }) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const line = document.createElementNS(space, "line");
  const look = { x1: 0, x2: 22, y1: 4, y2: 4, stroke, "stroke-width": 4, ...(dash && { "stroke-dasharray": dash.join(" ") }) };
  for (const [name, value] of Object.entries(look)) line.setAttribute(name, value);
  svg.setAttribute("aria-hidden", "true");
  svg.append(line);
  return svg;
}

/** The parts as the server renders them now; nothing moves under the pointer or the focus. */
async function look() {
  const address = new URL(location.href);
  address.searchParams.set("part", "true");
  const fresh = await getHtml(address);
  for (const old of document.querySelectorAll("[data-part]")) {
    const part = fresh.querySelector(`[data-part="${old.dataset.part}"]`);
    if (part && old.innerHTML !== part.innerHTML && !old.matches(":hover") && !old.contains(document.activeElement)) old.innerHTML = part.innerHTML;
  }
  const [now, then] = [fresh.getElementById("plot"), byId("plot")];
  if (!now || !then) return;
  then.setAttribute("aria-label", now.getAttribute("aria-label"));
  const changed = now.dataset.plot !== then.dataset.plot;
  Object.assign(then.dataset, { plot: now.dataset.plot, over: now.dataset.over });
  if (changed) draw();
}

/** The sweep is looked at again when one of its jobs changed. */
function follow() {
  const ids = new Set([...document.querySelectorAll('#sweep-parts a[href^="/jobs/"]')].map((link) => link.getAttribute("href").split("/").at(-1)));
  const hints = new Hints({
    badge: byId("fresh"),
    about: (id) => ids.has(id),
    pause: PAUSE,
    refresh: async () => {
      await look();
      if (byId("plot")?.dataset.over === "true") hints.end();
    },
  });
  hints.start();
}

addEventListener("fadrm:theme", draw);
draw();
const frame = byId("plot");
if (frame) new ResizeObserver(() => plot?.setSize({ width: frame.clientWidth, height: HEIGHT })).observe(frame);
if (frame?.dataset.over !== "true") follow();
