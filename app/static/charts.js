// Curves that grow while one looks: uPlot under a small frame that knows our colours, marks, legend and table.
import { byId, colour, eachFrame, make, number, say } from "./dom.js";

const { default: UPlot } = await import(byId("uplot").href);

const FONT = "11px Liberation Sans, Arial, sans-serif";
const TABLE_ROWS = 200;
const WHOLE = [1, 2, 5].flatMap((first) => [1, 10, 100, 1e3, 1e4, 1e5].map((power) => first * power)).sort((a, b) => a - b);
const HEIGHT = 198; // px

/** A chart of named curves. A curve: {name, title, colour: custom property, dash, scale: "y" | "pct"}. */
export class Chart {
  #plot = null;
  #points = new Map(); // curve's name -> Map x -> value
  #curves = [];
  #marks = new Map(); // x -> {alpha, size_from, size_to}
  #levels = []; // {value, title, scale}
  #cursor = null;
  #redraw = eachFrame(() => this.#draw());

  /** clocks: asked when the reader wants time on the x axis; gives Map curve's name -> [[x, seconds], ...]. */
  constructor(id, { x, log = false, shiftX = 0, upTo = null, clocks = null }) {
    this.root = byId(id);
    this.x = x;
    this.shiftX = shiftX;
    this.upTo = upTo; // where x ends, when it is known: then curves grow into a frame that stays
    this.log = log;
    this.clocks = clocks;
    this.byTime = null; // Map curve's name -> its clock, while time is on the x axis
    this.smooth = 0;
    this.asTable = false;
    this.#find();
    addEventListener("fadrm:theme", () => this.#rebuild());
    addEventListener("beforeprint", () => {
      this.visible = true; // paper has no fold
      this.#draw();
    });
    this.visible = false;
    new IntersectionObserver((entries) => {
      this.visible = entries.at(-1).isIntersecting;
      if (this.visible) this.#redraw();
    }, { rootMargin: "200px" }).observe(this.root);
  }

  #find() {
    const part = (name) => this.root.querySelector(`[data-${name}]`);
    this.parts = { plot: part("plot"), legend: part("legend"), table: part("table-body"), empty: part("empty") };
    part("table").addEventListener("click", (event) => {
      this.asTable = !this.asTable;
      event.currentTarget.setAttribute("aria-pressed", String(this.asTable));
      this.#redraw();
    });
    part("log")?.addEventListener("click", (event) => {
      this.log = !this.log;
      event.currentTarget.setAttribute("aria-pressed", String(this.log));
      this.#rebuild();
    });
    part("smooth")?.addEventListener("input", (event) => {
      this.smooth = Number(event.target.value);
      this.#redraw();
    });
    part("time")?.addEventListener("click", (event) => this.#switchTime(event.currentTarget));
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(this.parts.plot);
  }

  async #switchTime(button) {
    if (this.byTime) this.byTime = null;
    else {
      const clocks = await this.clocks().catch(() => new Map());
      if (![...clocks.values()].some((clock) => clock.length > 1)) return say("It was not noted when these points came");
      this.byTime = clocks;
    }
    button.setAttribute("aria-pressed", String(this.byTime !== null));
    this.#rebuild();
  }

  /** Where a point lies on the x axis; null where that is not known. */
  #place(name, x) {
    if (!this.byTime) return x;
    const clock = this.byTime.get(name);
    return clock?.length > 1 ? between(clock, x - this.shiftX) : null;
  }

  /** Say which curves there are; points of others are kept, and not drawn. */
  show(curves) {
    if (JSON.stringify(curves) === JSON.stringify(this.#curves)) return;
    this.#curves = curves;
    this.#rebuild();
  }

  clear() {
    this.#points.clear();
    this.#marks.clear();
    this.#redraw();
  }

  add(name, points) {
    const known = this.#points.get(name) ?? new Map();
    this.#points.set(name, known);
    for (const [x, value] of points) known.set(x + this.shiftX, value);
    this.#redraw();
  }

  mark(x, data) {
    this.#marks.set(x, data);
    this.#redraw();
  }

  level(levels) {
    this.#levels = levels;
    this.#redraw();
  }

  #size() {
    return { width: Math.max(this.parts.plot.clientWidth, 120), height: HEIGHT };
  }

  #rebuild() {
    this.#plot?.destroy();
    this.#plot = null;
    this.#redraw();
  }

  #drawn() {
    return this.#curves.filter((curve) => this.#points.get(curve.name)?.size);
  }

  /** x in order, then one row of values a curve, with gaps where a curve has no point. */
  #data(curves) {
    const found = curves.map((curve) => {
      const placed = [...this.#points.get(curve.name)].map(([x, value]) => [this.#place(curve.name, x), value]);
      return new Map(placed.filter(([x]) => x !== null));
    });
    const places = [...new Set(found.flatMap((known) => [...known.keys()]))].sort((a, b) => a - b);
    const rows = found.map((known) =>
      smoothed(places.map((x) => {
        const value = known.get(x);
        return value === undefined || (this.log && !(value > 0)) ? null : value;
      }), this.smooth));
    return [places, ...rows];
  }

  #draw() {
    const curves = this.#drawn();
    const { plot, legend, table, empty } = this.parts;
    empty.hidden = curves.length > 0;
    plot.hidden = legend.hidden = this.asTable || !curves.length;
    table.hidden = !this.asTable || !curves.length;
    if (!curves.length) return;
    const data = this.#data(curves);
    if (this.asTable) this.#fillTable(curves, data);
    else this.#fillLegend(curves, data);
    if (!this.asTable && this.visible) this.#paint(curves, data);
  }

  #paint(curves, data) {
    const names = curves.map((curve, index) => `${curve.name} ${isLone(data[index + 1])}`).join(" ");
    if (this.#plot && this.names !== names) this.#plot = void this.#plot.destroy();
    this.names = names;
    if (this.#plot) this.#plot.setData(data);
    else this.#plot = new UPlot(this.#options(curves, data), data, this.parts.plot);
  }

  #options(curves, data) {
    const ink = colour("--ink-3");
    const line = colour("--line");
    const scales = [...new Set(curves.map((curve) => curve.scale ?? "y"))];
    const axis = { stroke: ink, font: FONT, grid: { stroke: line, width: 1 }, ticks: { stroke: line, size: 4 } };
    return {
      ...this.#size(),
      legend: { show: false },
      cursor: { drag: { x: true, y: false, uni: 10 }, points: { size: 6 } },
      padding: [this.#curves.some((curve) => curve.marked) ? 18 : 8, 10, 0, 0],
      scales: { x: { time: false, range: (plot, least, most) => (this.upTo && !this.byTime ? [0, Math.max(this.upTo, most)] : [least, most]) }, y: { distr: this.log ? 3 : 1 }, pct: { range: (plot, least, most) => rangeOfPercent(least, most, this.#levels.map((level) => level.value)) } },
      axes: [
        { ...axis, size: 30, space: 70, ...(this.byTime ? { values: (plot, splits) => splits.map(timeOf) } : { incrs: WHOLE }) },
        ...scales.map((scale, place) => ({
          ...axis,
          scale,
          side: place === 0 ? 3 : 1,
          size: 46,
          grid: place === 0 ? { ...axis.grid, ...(this.log && { filter: decades }) } : { show: false },
          ticks: { ...axis.ticks, ...(this.log && { filter: decades }) },
          values: (plot, splits) => splits.map((value) => (value === null ? "" : number(value, 3))),
        })),
      ],
      series: [
        {},
        ...curves.map((curve, place) => ({
          label: curve.title,
          scale: curve.scale ?? "y",
          stroke: colour(curve.colour),
          width: curve.width ?? 1.5,
          dash: curve.dash,
          spanGaps: true,
          points: { show: (plot, index) => plot.data[index].filter((value) => value !== null).length < 25, ...(isLone(data[place + 1]) ? { size: 10, fill: colour(curve.colour) } : { size: 4 }) },
        })),
      ],
      hooks: {
        draw: [(plot) => this.#drawLevels(plot), (plot) => this.#drawMarks(plot)],
        setCursor: [(plot) => this.#point(curves, plot)],
      },
    };
  }

  #point(curves, plot) {
    this.#cursor = plot.cursor.idx ?? null;
    this.#fillLegend(curves, plot.data);
  }

  /** Upright lines where the patches were mixed in; their labels lie beside them, or along them where it is narrow. */
  #drawMarks(plot) {
    const first = this.#curves[0]?.name;
    const marks = [...this.#marks].map(([x, mark]) => [this.#place(first, x), mark]).filter(([x]) => x !== null).sort(([a], [b]) => a - b);
    const context = plot.ctx;
    const { left, top, width, height } = plot.bbox;
    const ratio = devicePixelRatio;
    const places = marks.map(([x]) => plot.valToPos(x, "x", true));
    const labels = marks.map(([, mark]) => `α = ${mark.alpha} · ${mark.size_from}→${mark.size_to} px`);
    context.save();
    context.font = `${11 * ratio}px Liberation Sans, Arial, sans-serif`;
    context.strokeStyle = context.fillStyle = colour("--injection");
    context.lineWidth = ratio;
    context.textAlign = "left";
    context.textBaseline = "alphabetic";
    const widest = Math.max(0, ...labels.map((label) => context.measureText(label).width)) + 8 * ratio;
    const flat = places.every((place, index) => (places[index + 1] ?? left + width) - place >= widest);
    places.forEach((place, index) => {
      if (place < left - 1 || place > left + width + 1) return;
      context.setLineDash([3 * ratio, 3 * ratio]);
      context.beginPath();
      context.moveTo(place, top - (flat ? 14 * ratio : 0));
      context.lineTo(place, top + height);
      context.stroke();
      if (flat) context.fillText(labels[index], place + 4 * ratio, top - 5 * ratio);
      else along(context, labels[index], place + 11 * ratio, top + 5 * ratio);
    });
    context.restore();
  }

  #drawLevels(plot) {
    const context = plot.ctx;
    const { left, top, width } = plot.bbox;
    const ratio = devicePixelRatio;
    context.save();
    context.font = `${11 * ratio}px Liberation Sans, Arial, sans-serif`;
    context.strokeStyle = context.fillStyle = colour("--ink-2");
    context.lineWidth = ratio;
    context.textAlign = "left";
    context.textBaseline = "alphabetic";
    context.setLineDash([2 * ratio, 3 * ratio]);
    for (const level of this.#levels) {
      const place = plot.valToPos(level.value, level.scale ?? "y", true);
      if (!(place >= top)) continue;
      context.beginPath();
      context.moveTo(left, place);
      context.lineTo(left + width, place);
      context.stroke();
      context.fillText(level.title, left + 6 * ratio, place - 4 * ratio);
    }
    context.restore();
  }

  #fillLegend(curves, data) {
    const place = this.#cursor;
    const items = curves.map((curve, index) => {
      const row = data[index + 1];
      const value = place === null ? row.findLast((found) => found !== null) : nearest(row, place);
      return make("span", {}, swatch(curve), curve.title, make("b", { text: number(value ?? null) }));
    });
    const x = place === null ? "last" : this.byTime ? `after ${timeOf(data[0][place])}` : `${this.x} ${data[0][place]}`;
    this.parts.legend.replaceChildren(make("span", { class: "quiet", text: x }), ...items);
  }

  #fillTable(curves, [places, ...rows]) {
    const every = Math.ceil(places.length / TABLE_ROWS);
    const head = make("tr", {}, make("th", { scope: "col", text: this.byTime ? "after" : this.x }),
      ...curves.map((curve) => make("th", { scope: "col", class: "num", text: curve.title })));
    const body = places
      .map((x, index) => [x, index])
      .filter(([, index]) => index % every === 0 || index === places.length - 1)
      .map(([x, index]) => {
        const mark = this.byTime ? null : this.#marks.get(x);
        const text = this.byTime ? timeOf(x) : mark ? `${x} (patches mixed in, α = ${mark.alpha})` : String(x);
        return make("tr", {}, make("th", { scope: "row", text }), ...rows.map((row) => make("td", { class: "num", text: number(row[index]) })));
      });
    const table = this.parts.table.querySelector("table");
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(...body);
  }
}

/** Seconds at x: between the two nearest entries of a clock, and beyond its ends at the pace there. */
function between(clock, x) {
  let high = clock.findIndex(([at]) => at >= x);
  if (high < 0) high = clock.length - 1;
  high = Math.max(high, 1);
  const [[x0, s0], [x1, s1]] = [clock[high - 1], clock[high]];
  return Math.max(0, s0 + ((s1 - s0) * (x - x0)) / (x1 - x0));
}

/** Whether a row has a single point, which no line leads to. */
function isLone(row) {
  return row.filter((value) => value !== null).length === 1;
}

/** An exponential mean that begins without a bias to 0; gaps stay gaps. */
function smoothed(row, weight) {
  if (!weight) return row;
  let [sum, share] = [0, 0];
  return row.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    share = weight * share + (1 - weight);
    return sum / share;
  });
}

function timeOf(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 90) return `${number(seconds, 2)} s`;
  return seconds < 5400 ? `${number(seconds / 60, 2)} min` : `${number(seconds / 3600, 2)} h`;
}

/** On a logarithmic axis that spans much, only the powers of ten have lines. */
function decades(plot, splits) {
  const wide = splits.at(-1) / splits[0] > 50;
  const isPower = (value) => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9;
  return splits.map((value) => (wide && !isPower(value) ? null : value));
}

function nearest(row, place) {
  for (let index = place; index >= 0; index -= 1) if (row[index] !== null) return row[index];
  return null;
}

function along(context, text, x, y) {
  context.save();
  context.translate(x, y);
  context.rotate(Math.PI / 2);
  context.fillText(text, 0, 8);
  context.restore();
}

function rangeOfPercent(least, most, levels) {
  if (least === null) return [0, 100];
  [least, most] = [Math.min(least, ...levels), Math.max(most, ...levels)];
  const room = Math.max((most - least) * 0.1, 1);
  return [Math.max(0, least - room), Math.min(100.5, most + room)];
}

function swatch(curve) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const line = document.createElementNS(space, "line");
  for (const [name, value] of Object.entries({ x1: 0, x2: 22, y1: 4, y2: 4, "stroke-width": 2, stroke: colour(curve.colour) })) {
    line.setAttribute(name, value);
  }
  if (curve.dash) line.setAttribute("stroke-dasharray", curve.dash.join(" "));
  svg.setAttribute("aria-hidden", "true");
  svg.append(line);
  return svg;
}
