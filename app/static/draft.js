// What was typed is kept in this browser, and offered when one comes back to the form; what was submitted, only by Back.
import { byId, debounced, make } from "./dom.js";

const PLACE = "draft of a job";
const NOT_KEPT = new Set(["csrf", "idempotency_key", "action"]);

function kept() {
  try {
    return JSON.parse(localStorage.getItem(PLACE));
  } catch {
    return null;
  }
}

function keep(draft) {
  try {
    if (draft) localStorage.setItem(PLACE, JSON.stringify(draft));
    else localStorage.removeItem(PLACE);
  } catch {
    // Then it is lost with the page.
  }
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
    keep(null);
    notice.hidden = true;
  });
  notice.hidden = false;
}

export function keepDraft(form) {
  const draft = kept();
  const cameBack = performance.getEntriesByType("navigation")[0]?.type === "back_forward";
  const write = (submitted = false) => keep({ at: Date.now(), submitted, fields: [...new FormData(form)].filter(([name]) => !NOT_KEPT.has(name)) });
  if (byId("draft").dataset.posted) write();
  else if (draft && (cameBack || !draft.submitted)) offer(form, draft);
  const soon = debounced(300, () => write());
  form.addEventListener("input", soon);
  form.addEventListener("submit", (event) => {
    soon.cancel();
    if (event.submitter?.value === "submit") write(true);
  });
}
