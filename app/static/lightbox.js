// One image of the grid, large, beside the patch that it came from.
import { byId } from "./dom.js";

const SIDE = 384; // px, at most; small images are enlarged by whole factors, so that pixels stay square

/** Opens on the images of `source`: {count(), at(index) -> {title, note, now, then}}; a picture: {image, x, y, side}. */
export class Lightbox {
  constructor(source) {
    this.source = source;
    this.index = 0;
    this.dialog = byId("lightbox");
    byId("lightbox-close").addEventListener("click", () => this.dialog.close());
    byId("lightbox-back").addEventListener("click", () => this.#move(-1));
    byId("lightbox-forward").addEventListener("click", () => this.#move(1));
    this.dialog.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) this.#move(by);
    });
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // beside it
    });
  }

  open(index) {
    this.index = index;
    this.draw();
    this.dialog.showModal();
  }

  #move(by) {
    const count = this.source.count();
    this.index = (this.index + by + count) % count;
    this.draw();
  }

  /** Again, when another sheet is shown meanwhile. */
  draw() {
    const { title, note, now, then } = this.source.at(this.index);
    byId("lightbox-title").textContent = title;
    byId("lightbox-note").textContent = note;
    paint(byId("lightbox-now"), now);
    byId("lightbox-then").parentElement.hidden = !then;
    if (then) paint(byId("lightbox-then"), then);
  }
}

function paint(canvas, { image, x, y, side }) {
  const factor = Math.max(1, Math.floor(SIDE / side));
  canvas.width = canvas.height = side * factor;
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(image, x, y, side, side, 0, 0, canvas.width, canvas.height);
}
