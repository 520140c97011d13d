// News of one job: one EventSource a tab, closed while the tab is hidden, resumed by number; polling where streams do not pass.
// Each piece of news is dispatched on `document` as `fadrm:<kind>`, its detail being {seq, kind, step_id, at, data}.
import { getJson } from "./dom.js";

const KINDS = ["job", "step", "started", "metrics", "progress", "injection", "preview", "log", "checkpoint", "cancel",
  "pause", "resume", "retry", "change"];
const ENDS = new Set(["succeeded", "failed", "cancelled"]);
const OPEN_WITHIN = 5000; // ms; a proxy that buffers never opens
const ERRORS_BEFORE_POLLING = 2;
const POLL_EVERY = 3000; // ms
const POLLS_BEFORE_STREAM = 10;
const QUIET_AFTER = 30; // s

export class Live {
  #source = null;
  #timer = 0;
  #errors = 0;
  #polls = 0;
  #heard = Date.now();
  #state = "live";

  constructor({ stream, events, seq, badge }) {
    Object.assign(this, { stream, events, seq, badge, ended: false });
  }

  start() {
    this.badge.hidden = false;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#pause() : this.#listen()));
    addEventListener("pagehide", () => this.#pause());
    addEventListener("pageshow", (event) => event.persisted && this.#listen());
    setInterval(() => this.#show(), 1000);
    this.#listen();
  }

  #pause() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #listen() {
    if (this.ended || document.hidden) return;
    this.#pause();
    const source = new EventSource(`${this.stream}?after_seq=${this.seq}`);
    this.#source = source;
    this.#timer = setTimeout(() => this.#poll(), OPEN_WITHIN);
    source.onopen = () => {
      clearTimeout(this.#timer);
      this.#errors = 0;
      this.#show("live");
    };
    source.onerror = () => this.#failed(source);
    for (const kind of KINDS) source.addEventListener(kind, (event) => this.#hear(read(kind, event)));
    source.addEventListener("end", () => this.#end());
    source.addEventListener("reset", () => document.dispatchEvent(new CustomEvent("fadrm:reset")));
  }

  #failed(source) {
    if (source !== this.#source) return;
    this.#errors += 1;
    if (source.readyState === EventSource.CLOSED || this.#errors >= ERRORS_BEFORE_POLLING) this.#poll();
    else this.#show("offline");
  }

  /** Ask for what is new, and again soon; now and then try a stream again. */
  async #poll() {
    this.#pause();
    if (this.ended || document.hidden) return;
    let more = false;
    try {
      const page = await getJson(`${this.events}?after_seq=${this.seq}`);
      this.#show("polling");
      for (const news of page.data) this.#hear(news);
      more = page.has_more;
      if (!more) this.#polls += 1;
    } catch (error) {
      this.#show(error.status === 401 ? "logged out" : "offline");
    }
    if (this.ended || this.#state === "logged out") return;
    const again = this.#polls >= POLLS_BEFORE_STREAM && this.#state === "polling";
    if (again) this.#polls = this.#errors = 0;
    this.#timer = setTimeout(() => (again ? this.#listen() : this.#poll()), more ? 0 : POLL_EVERY);
  }

  #hear(news) {
    if (news.seq <= this.seq) return; // a resumed stream may say something twice
    this.seq = news.seq;
    this.#heard = Date.now();
    document.dispatchEvent(new CustomEvent(`fadrm:${news.kind}`, { detail: news }));
    document.dispatchEvent(new CustomEvent("fadrm:any", { detail: news }));
    if (news.kind === "job" && ENDS.has(news.data.state)) this.#end();
  }

  #end() {
    if (this.ended) return;
    this.ended = true;
    this.#pause();
    this.badge.hidden = true;
    document.dispatchEvent(new CustomEvent("fadrm:end"));
  }

  #show(state = this.#state) {
    this.#state = state;
    const quiet = Math.round((Date.now() - this.#heard) / 1000);
    this.badge.dataset.state = state;
    this.badge.textContent = state === "live" && quiet >= QUIET_AFTER ? `live, quiet for ${quiet} s` : state;
    this.badge.title = `Last news ${quiet} s ago`;
  }
}

function read(kind, event) {
  const data = JSON.parse(event.data);
  const whole = typeof data === "object" && data !== null && "data" in data && "seq" in data;
  return whole ? data : { seq: Number(event.lastEventId), kind, data };
}
