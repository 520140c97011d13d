// The tail of the log. Lines are worded by the server; this only asks for new ones, and keeps the end in view when asked to.
import { byId, debounced, getJson, make } from "./dom.js";

const KEPT = 2000; // lines in the page

export class Log {
  constructor(base) {
    this.base = base;
    this.lines = byId("lines");
    this.button = byId("follow-log");
    this.seq = Number(this.lines.dataset.seq);
    this.asking = false;
    this.button.addEventListener("click", () => this.#follow(this.button.getAttribute("aria-pressed") !== "true"));
    this.lines.addEventListener("scroll", () => this.#follow(this.#atEnd(), false));
    this.news = debounced(250, () => this.#fetch());
    this.#toEnd();
  }

  get following() {
    return this.button.getAttribute("aria-pressed") === "true";
  }

  #atEnd() {
    return this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight < 24;
  }

  #toEnd() {
    this.lines.scrollTop = this.lines.scrollHeight;
  }

  #follow(wanted, jump = true) {
    this.button.setAttribute("aria-pressed", String(wanted));
    if (wanted && jump) this.#toEnd();
  }

  async #fetch() {
    if (this.asking) return this.news();
    this.asking = true;
    try {
      const page = await getJson(`${this.base}/log?after_seq=${this.seq}&limit=500`);
      const following = this.following;
      this.lines.append(...page.data.map(line));
      this.seq = Math.max(this.seq, page.last_seq);
      while (this.lines.children.length > KEPT) this.lines.firstElementChild.remove();
      if (following) this.#toEnd();
      if (page.has_more) this.news();
    } catch {
      setTimeout(() => this.news(), 3000); // the badge says that the server is away
    } finally {
      this.asking = false;
    }
  }
}

function line({ seq, at, level, step, message }) {
  const time = make("time", { datetime: at, text: new Date(at).toISOString().slice(11, 19) });
  const words = make("span", {}, ...(step ? [make("b", { text: step }), " "] : []), message);
  const loud = level === "info" ? [] : [make("b", { text: level })];
  return make("li", { class: level, value: seq }, time, ...loud, words);
}
