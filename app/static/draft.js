// What was typed is kept for this tab, and offered when one comes back to the form; what was submitted, only by Back.
// The draft that was typed in last, in whatever tab, is offered to a tab that has none of its own.
import { byId, debounced, make } from "./dom.js";

const PLACE = "draft of a job";
const NOT_KEPT = new Set(["csrf", "idempotency_key", "action"]);

function kept(storage) {
  try {
    return JSON.parse(storage().getItem(PLACE));
  } catch {
    return null;
  }
}

function keep(storage, draft) {
  try {
    if (draft) storage().setItem(PLACE, JSON.stringify(draft));
    else storage().removeItem(PLACE);
  } catch {
    // Then it is lost with the page.
  }
}

// A browser that keeps nothing throws where one names its storage.
const own = () => sessionStorage;
const last = () => localStorage;

/** Forget a draft that is done with. That of another tab, which was typed in since, stays. */
function forget(draft) {
  for (const storage of [own, last]) if (kept(storage)?.at === draft?.at) keep(storage, null);
}

/** The server makes the form of a draft, as it does when a teacher is added: it knows how many fields there are. */
function resume(form, fields) {
  const again = make("form", { method: "post", action: form.getAttribute("action"), hidden: true });
  const own = ["csrf", "idempotency_key"].map((name) => [name, form.elements.namedItem(name).value]);
  for (const [name, value] of [...fields, ...own, ["action", "check"]]) {
    again.append(make("input", { type: "hidden", name, value }));
  }
  document.body.append(again);
  again.submit();
}

function offer(form, draft) {
  const notice = byId("draft");
  const go = make("button", { class: "button", type: "button", text: "Go on with it" });
  const drop = make("button", { class: "button plain", type: "button", text: "Discard it" });
  const when = new Date(draft.at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
  const told = draft.submitted ? `Your last form, submitted on ${when}, is still here.` : `A form that was not submitted is still here, from ${when}.`;
  notice.replaceChildren(make("p", { text: told }), make("div", { class: "buttons" }, go, drop));
  go.addEventListener("click", () => resume(form, draft.fields));
  drop.addEventListener("click", () => {
    forget(draft);
    notice.hidden = true;
  });
  notice.hidden = false;
}

export function keepDraft(form) {
  const draft = kept(own) ?? kept(last);
  const cameBack = performance.getEntriesByType("navigation")[0]?.type === "back_forward";
  const typed = (submitted) => ({ at: Date.now(), submitted, fields: [...new FormData(form)].filter(([name]) => !NOT_KEPT.has(name)) });
  const write = () => {
    const now = typed(false);
    for (const storage of [own, last]) keep(storage, now);
  };
  if (byId("draft").dataset.posted) write();
  else if (draft && (cameBack || !draft.submitted)) offer(form, draft);
  const soon = debounced(300, write);
  form.addEventListener("input", soon);
  form.addEventListener("submit", (event) => {
    soon.cancel();
    if (event.submitter?.value !== "submit") return;
    forget(kept(own));
    keep(own, typed(true));
  });
}
