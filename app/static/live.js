// News without reloading: one EventSource a tab, closed while the tab is hidden, resumed by number; where streams do not
// pass, the page asks every few seconds. The badge says when the server was last heard.
import { getJson, make } from "./dom.js";

const KINDS = ["job", "step", "started", "metrics", "progress", "injection", "preview", "log", "checkpoint", "cancel",
  "pause", "resume", "retry", "change"];
const ENDS = new Set(["succeeded", "failed", "cancelled"]);
const OPEN_WITHIN = 5000; // ms; a proxy that buffers never opens
const ERRORS_BEFORE_POLLING = 2;
const POLL_EVERY = 3000; // ms
const POLLS_BEFORE_STREAM = 10;
const LATE_AFTER = 30; // s without a word, though the server pings every 15 s

/** A stream, or asking in its place. Who extends it says: address(), kinds, hear(event, kind), ask() -> whether there is more. */
class Feed {
  #source = null;
  #timer = 0;
  #errors = 0;
  #polls = 0;
  #heard = Date.now();
  #state = "live";

  constructor(badge) {
    this.badge = badge;
    this.ended = false;
  }

  start() {
    this.badge.hidden = false;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#pause() : this.#listen()));
    addEventListener("pagehide", () => this.#pause());
    addEventListener("pageshow", (event) => event.persisted && this.#listen());
    setInterval(() => this.#show(), 1000);
    this.#listen();
  }

  end() {
    if (this.ended) return;
    this.ended = true;
    this.#pause();
    this.badge.hidden = true;
  }

  #pause() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #listen() {
    if (this.ended || document.hidden) return;
    this.#pause();
    const source = new EventSource(this.address());
    this.#source = source;
    this.#timer = setTimeout(() => this.#poll(), OPEN_WITHIN);
    source.onopen = () => {
      clearTimeout(this.#timer);
      this.#errors = 0;
      this.#touch("live");
      this.opened?.();
    };
    source.onerror = () => this.#failed(source);
    for (const kind of ["ping", ...this.kinds]) {
      source.addEventListener(kind, (event) => {
        this.#touch();
        if (kind !== "ping") this.hear(event, kind);
      });
    }
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
      more = await this.ask();
      this.#touch("polling");
      if (!more) this.#polls += 1;
    } catch (error) {
      this.#show(error.status === 401 ? "logged out" : "offline");
    }
    if (this.ended || this.#state === "logged out") return;
    const again = this.#polls >= POLLS_BEFORE_STREAM && this.#state === "polling";
    if (again) this.#polls = this.#errors = 0;
    this.#timer = setTimeout(() => (again ? this.#listen() : this.#poll()), more ? 0 : (this.every ?? POLL_EVERY));
  }

  #touch(state) {
    this.#heard = Date.now();
    this.#show(state);
  }

  #show(state = this.#state) {
    this.#state = state;
    const age = Math.max(0, Math.round((Date.now() - this.#heard) / 1000));
    this.badge.dataset.state = state;
    this.badge.toggleAttribute("data-late", age >= LATE_AFTER);
    const told = make("span", { class: "fresh-age", text: `, last update ${age} s ago` });
    this.badge.replaceChildren(state, ...(state === "logged out" ? [] : [told]));
  }
}

/** News of one job. Each is dispatched on `document` as `fadrm:<kind>`, its detail being {seq, kind, step_id, at, data}. */
export class Live extends Feed {
  constructor({ stream, events, seq, badge }) {
    super(badge);
    Object.assign(this, { stream, events, seq, kinds: [...KINDS, "end", "reset"] });
  }

  address() {
    return `${this.stream}?after_seq=${this.seq}&pings=true`;
  }

  hear(event, kind) {
    if (kind === "end") this.#end();
    else if (kind === "reset") document.dispatchEvent(new CustomEvent("fadrm:reset"));
    else this.#tell(read(kind, event));
  }

  async ask() {
    const page = await getJson(`${this.events}?after_seq=${this.seq}`);
    for (const news of page.data) this.#tell(news);
    return page.has_more;
  }

  #tell(news) {
    if (news.seq <= this.seq) return; // a resumed stream may say something twice
    this.seq = news.seq;
    document.dispatchEvent(new CustomEvent(`fadrm:${news.kind}`, { detail: news }));
    document.dispatchEvent(new CustomEvent("fadrm:any", { detail: news }));
    if (news.kind === "job" && ENDS.has(news.data.state)) this.#end();
  }

  #end() {
    if (this.ended) return;
    this.end();
    document.dispatchEvent(new CustomEvent("fadrm:end"));
  }
}

/** Hints that one of many jobs changed. refresh: a promise, fetches what the page shows; about: of which job, null for any. */
export class Hints extends Feed {
  constructor({ badge, refresh, about = () => true, pause = 400 }) {
    super(badge);
    Object.assign(this, { refresh, about, pause, kinds: ["job"], every: 10_000, due: 0, busy: false });
  }

  address() {
    return "/api/v1/stream?pings=true";
  }

  opened() {
    this.#soon();
  }

  hear(event) {
    if (this.about(JSON.parse(event.data).id)) this.#soon();
  }

  async ask() {
    await this.refresh();
    return false;
  }

  /** However many hints come, one refresh at a time, and a pause between them. */
  #soon() {
    clearTimeout(this.due);
    this.due = setTimeout(async () => {
      if (this.busy) return this.#soon();
      this.busy = true;
      await this.refresh().catch(() => {}); // the badge says that the server is away
      this.busy = false;
    }, this.pause);
  }
}

function read(kind, event) {
  const data = JSON.parse(event.data);
  const whole = typeof data === "object" && data !== null && "data" in data && "seq" in data;
  return whole ? data : { seq: Number(event.lastEventId), kind, data };
}
