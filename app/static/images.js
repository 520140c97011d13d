// The images over the iterations: one slider, one sheet at a time, and a wipe against the patches that they start from.
import { byId, getJson, make, say } from "./dom.js";
import { Lightbox } from "./lightbox.js";

const SIDES = [32, 48, 64, 80, 96, 128, 192]; // px of a tile on the page
const TALLEST = 430; // px that the tiles take of themselves
const LARGE_TILE = 96; // px of a tile in a sheet from which on it is drawn smoothly

export class Images {
  constructor(base, isOver) {
    Object.assign(this, { base, steps: new Map(), key: null, x: 0, following: !isOver, side: null, isOver, wipe: 0 });
    this.$ = Object.fromEntries(
      ["timeline", "time", "ticks", "iteration", "iteration-note", "tiles", "wipe", "wipe-row", "wipe-now", "follow", "back",
        "forward", "smaller", "larger", "sheet", "no-images", "images-step"].map((id) => [id, byId(id)]),
    );
    this.lightbox = new Lightbox({ count: () => this.#sheet(this.x).names.length, at: (index) => this.#one(index) });
    this.#listen();
  }

  #listen() {
    const { time, follow, back, forward, smaller, larger, wipe } = this.$;
    time.addEventListener("input", () => this.#touch(this.#nearest(Number(time.value))));
    time.addEventListener("keydown", (event) => this.#key(event));
    for (const [button, by] of [[back, -1], [forward, 1]]) {
      button.addEventListener("click", () => {
        this.#move(by);
        say(this.$.time.getAttribute("aria-valuetext")); // the slider says it by itself
      });
    }
    follow.addEventListener("click", () => this.#follow(!this.following));
    smaller.addEventListener("click", () => this.#resize(-1));
    larger.addEventListener("click", () => this.#resize(1));
    wipe.addEventListener("input", () => this.#wipeTo(Number(wipe.value)));
    byId("difference").addEventListener("click", (event) => {
      const pressed = this.$.tiles.classList.toggle("difference");
      event.currentTarget.setAttribute("aria-pressed", String(pressed));
      wipe.disabled = pressed;
    });
    this.$.tiles.addEventListener("click", (event) => {
      const figure = event.target.closest(".tile");
      if (figure) this.lightbox.open([...this.$.tiles.children].indexOf(figure));
    });
    this.$["images-step"].addEventListener("change", (event) => this.#chooseStep(event.target.value));
  }

  async load() {
    const previews = await getJson(`${this.base}/previews`);
    for (const step of previews.data) {
      for (const preview of step.previews) this.#know(step, preview);
    }
    if (!this.key) return;
    this.#fillSteps();
    this.#drawTimeline();
    await this.#show(this.#places().at(-1));
  }

  /** A sheet of a step {key, kind, title} came: {x, total, url, columns, tile, labels, names}. */
  add(step, preview) {
    const { key } = step;
    this.#know(step, preview);
    this.#fillSteps();
    if (key !== this.key) return;
    this.#drawTimeline();
    if (this.following || this.steps.get(key).sheets.size === 1) this.#show(this.#places().at(-1));
    else this.#drawButtons();
  }

  /** The images under recovery are what one came to see; until they are there, the patches are shown. */
  #know({ key, kind, title }, preview) {
    if (!this.steps.has(key)) this.steps.set(key, { kind, title, sheets: new Map() });
    this.steps.get(key).sheets.set(preview.x, preview);
    const better = kind === "recover" && !this.chosen && this.steps.get(this.key)?.kind !== "recover";
    if (!this.key || better) this.key = key;
  }

  mark(key, mark) {
    this.marks ??= new Map();
    if (!this.marks.has(key)) this.marks.set(key, new Map());
    this.marks.get(key).set(mark.x, mark);
    if (key === this.key && this.steps.has(key)) this.#drawTimeline();
  }

  over() {
    this.isOver = true;
    this.following = false;
    this.$.follow.hidden = true;
  }

  #fillSteps() {
    const select = this.$["images-step"];
    if (select.options.length !== this.steps.size) {
      select.replaceChildren(...[...this.steps].map(([key, step]) => make("option", { value: key, text: step.title })));
    }
    select.value = this.key;
    select.hidden = this.steps.size < 2;
  }

  #chooseStep(key) {
    this.key = key;
    this.chosen = true;
    this.#drawTimeline();
    this.#show(this.#places().at(-1));
  }

  #places() {
    return [...this.steps.get(this.key).sheets.keys()].sort((a, b) => a - b);
  }

  #sheet(x) {
    return this.steps.get(this.key).sheets.get(x);
  }

  #nearest(x) {
    return this.#places().reduce((best, place) => (Math.abs(place - x) < Math.abs(best - x) ? place : best));
  }

  #key(event) {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 };
    if (event.key in steps) {
      event.preventDefault();
      if (event.shiftKey) this.#moveToMark(steps[event.key]);
      else this.#move(steps[event.key]);
    } else if (event.key === "Home" || event.key === "End") {
      event.preventDefault();
      this.#touch(this.#places().at(event.key === "Home" ? 0 : -1));
    }
  }

  #move(by) {
    const places = this.#places();
    const index = places.indexOf(this.x) + by;
    if (index >= 0 && index < places.length) this.#touch(places[index]);
  }

  #moveToMark(by) {
    const marks = [...(this.marks?.get(this.key)?.keys() ?? [])].sort((a, b) => a - b);
    const next = by > 0 ? marks.find((x) => x + 1 > this.x) : marks.findLast((x) => x + 1 < this.x);
    if (next !== undefined) this.#touch(this.#nearest(next + 1));
  }

  /** The reader chose: from now on nothing moves by itself. */
  #touch(x) {
    this.#follow(false);
    this.#show(x);
  }

  #follow(wanted) {
    this.following = wanted && !this.isOver;
    this.$.follow.setAttribute("aria-pressed", String(this.following));
    if (this.following) this.#show(this.#places().at(-1));
  }

  /** The largest size at which all tiles are seen at once. */
  #fit(count) {
    const width = this.$.tiles.parentElement.clientWidth - 30;
    const height = (side) => Math.ceil(count / Math.max(1, Math.floor((width + 8) / (side + 8)))) * (side + 28);
    return SIDES.findLast((side) => height(side) <= TALLEST) ?? SIDES[0];
  }

  #resize(by) {
    const index = Math.min(Math.max(SIDES.indexOf(this.side) + by, 0), SIDES.length - 1);
    this.side = SIDES[index];
    this.#layOut(this.#sheet(this.x));
  }

  #wipeTo(percent) {
    this.wipe = percent;
    this.$.tiles.style.setProperty("--wipe", `${percent}%`);
    this.$.tiles.classList.toggle("wiping", percent > 0);
  }

  #drawTimeline() {
    const places = this.#places();
    const { total } = this.#sheet(places[0]);
    const { timeline, time, ticks, follow } = this.$;
    timeline.hidden = false;
    for (const part of [time, ticks, this.$.back, this.$.forward]) part.hidden = total === 0; // patches do not change
    follow.hidden = this.isOver || total === 0;
    time.max = total;
    const at = (element, x) => {
      element.style.setProperty("left", `${(100 * x) / Math.max(total, 1)}%`);
      return element;
    };
    const marks = [...(this.marks?.get(this.key)?.values() ?? [])];
    ticks.replaceChildren(
      ...places.map((x) => at(make("i"), x)),
      ...marks.map((mark) => at(make("b", { title: `α = ${mark.alpha} · ${mark.size_from}→${mark.size_to} px` }), mark.x)),
    );
  }

  /** Draw the sheet of iteration x when its pixels are here, so that nothing flickers. */
  async #show(x) {
    const sheet = this.#sheet(x);
    this.x = x;
    this.$.time.value = x;
    this.#describe(sheet);
    this.#drawButtons();
    const [now, then] = await Promise.all([sheet, this.#sheet(this.#places()[0])].map(loaded));
    if (this.x !== x || !now || !then) return; // the reader went on meanwhile, or the picture is gone
    const { tiles } = this.$;
    tiles.style.setProperty("--now", `url("${sheet.url}")`);
    tiles.style.setProperty("--then", `url("${then.url}")`);
    this.natural = now;
    this.first = then;
    this.#layOut(sheet);
    if (this.lightbox.dialog.open) this.lightbox.draw();
    this.#preloadAround(x);
  }

  #describe(sheet) {
    const marks = [...(this.marks?.get(this.key)?.values() ?? [])];
    const before = marks.find((mark) => mark.x === sheet.x);
    const after = marks.find((mark) => mark.x + 1 === sheet.x);
    let note = "";
    if (sheet.total === 0) note = "Real images, as they were chosen.";
    else if (sheet.x === 0) note = "The source patches, as they were chosen.";
    else if (before) note = "Right before the patches are mixed in.";
    else if (after) note = `Right after: α = ${after.alpha}, ${after.size_from}→${after.size_to} px.`;
    else if (sheet.x === sheet.total) note = "As they are kept.";
    if (!this.#isOfFirst(sheet)) note += " Other images of these classes than before.";
    const text = sheet.total ? `Iteration ${sheet.x.toLocaleString("en")} of ${sheet.total.toLocaleString("en")}` : "";
    this.$.iteration.textContent = text;
    this.$["iteration-note"].textContent = note;
    this.$["wipe-now"].textContent = sheet.x;
    this.$.time.setAttribute("aria-valuetext", `${text}. ${note}`);
  }

  /** Whether a sheet shows the images that the first sheet shows the patches of. */
  #isOfFirst(sheet) {
    return JSON.stringify(sheet.names) === JSON.stringify(this.#sheet(this.#places()[0]).names);
  }

  #drawButtons() {
    const places = this.#places();
    const index = places.indexOf(this.x);
    this.$.back.disabled = index <= 0;
    this.$.forward.disabled = index === places.length - 1;
  }

  /** One element a tile, cut out of the sheet by position: names under them, wipe and zoom for all by custom properties. */
  #layOut(sheet) {
    const { tiles } = this.$;
    const gap = gapOf(sheet, this.natural);
    this.side ??= this.#fit(sheet.names.length);
    const zoom = this.side / sheet.tile;
    tiles.hidden = false;
    this.$["wipe-row"].hidden = this.#places().length < 2 || !this.#isOfFirst(sheet);
    tiles.classList.toggle("wiping", this.wipe > 0 && this.#isOfFirst(sheet));
    this.$["no-images"].hidden = true;
    if (this.$.sheet) this.$.sheet.hidden = true;
    tiles.classList.toggle("crisp", sheet.tile < LARGE_TILE);
    tiles.style.setProperty("--side", `${this.side}px`);
    tiles.style.setProperty("--sheet", `${this.natural.width * zoom}px ${this.natural.height * zoom}px`);
    tiles.style.setProperty("--wipe", `${this.#isOfFirst(sheet) ? this.wipe : 0}%`);
    const plan = JSON.stringify([sheet.names, sheet.columns, sheet.tile]);
    if (this.built !== plan) tiles.replaceChildren(...sheet.names.map(tile));
    this.built = plan;
    [...tiles.children].forEach((element, index) => {
      const [row, column] = [Math.floor(index / sheet.columns), index % sheet.columns];
      const place = (count) => `${-count * (sheet.tile + gap) * zoom}px`;
      element.style.setProperty("--at", `${place(column)} ${place(row)}`);
    });
    this.$.smaller.disabled = this.side === SIDES[0];
    this.$.larger.disabled = this.side === SIDES.at(-1);
  }

  /** One image of the sheet that is shown, and the patch that it came from. */
  #one(index) {
    const sheet = this.#sheet(this.x);
    const stride = sheet.tile + gapOf(sheet, this.natural);
    const [x, y] = [(index % sheet.columns) * stride, Math.floor(index / sheet.columns) * stride];
    const cut = (picture) => ({ image: picture.image, x, y, side: sheet.tile });
    const changes = sheet.x > 0 && this.#isOfFirst(sheet);
    const note = sheet.total ? `Iteration ${sheet.x.toLocaleString("en")}` : "A real image";
    return { title: sheet.names[index], note, now: cut(this.natural), then: changes ? cut(this.first) : null };
  }

  #preloadAround(x) {
    const places = this.#places();
    const index = places.indexOf(x);
    for (const near of [places[index - 1], places[index + 1]]) if (near !== undefined) loaded(this.#sheet(near));
  }
}

function tile(name) {
  const image = make("button", { class: "tile-image", type: "button", "aria-label": `${name}, larger` }, make("i"), make("i", { class: "then" }));
  return make("figure", { class: "tile" }, image, make("figcaption", { text: name, title: name }));
}

/** Pixels between tiles: what the sheet's width leaves over. */
function gapOf(sheet, natural) {
  const rows = Math.ceil(sheet.names.length / sheet.columns);
  if (sheet.columns > 1) return (natural.width - sheet.columns * sheet.tile) / (sheet.columns - 1);
  return rows > 1 ? (natural.height - rows * sheet.tile) / (rows - 1) : 0;
}

const pixels = new Map(); // address -> promise of {url, width, height}, or of nothing where it cannot be had

function loaded(sheet) {
  if (!pixels.has(sheet.url)) {
    const image = new Image();
    image.src = sheet.url;
    const drawn = () => ({ url: sheet.url, width: image.naturalWidth, height: image.naturalHeight, image });
    pixels.set(sheet.url, image.decode().then(drawn, () => void pixels.delete(sheet.url)));
  }
  return pixels.get(sheet.url);
}
