// The form is posted to the server while one types, and says beside each field what the server says of it.
import { byId, debounced, say } from "./dom.js";
import { keepDraft } from "./draft.js";
import { filterPresets } from "./presets.js";

const form = byId("new");
const checking = byId("checking");
let asked = null;

for (const button of document.querySelectorAll("[data-without-js]")) button.hidden = true;

function take(fresh) {
  for (const slot of form.querySelectorAll(".field-errors")) {
    const found = fresh.getElementById(slot.id);
    const text = found?.innerHTML ?? "";
    if (slot.innerHTML !== text) slot.innerHTML = text;
    const control = form.querySelector(`[aria-describedby~="${slot.id}"]`);
    const wrong = text.trim() !== "";
    if (wrong) control?.setAttribute("aria-invalid", "true");
    else control?.removeAttribute("aria-invalid");
  }
  const open = byId("plan").querySelector("details[open]")?.id;
  byId("plan").replaceChildren(...fresh.getElementById("plan").childNodes);
  if (open) byId(open)?.setAttribute("open", "");
  if (!fresh.getElementById("no-plan")) byId("refusal").replaceChildren(); // it goes by itself, and comes only by submitting
  const count = form.querySelectorAll('[aria-invalid="true"]').length;
  say(count ? `${count} ${count === 1 ? "field is" : "fields are"} wrong.` : "The plan is ready.");
}

async function check() {
  asked?.abort();
  asked = new AbortController();
  const body = new FormData(form);
  body.set("action", "check");
  checking.hidden = false;
  try {
    const response = await fetch(form.getAttribute("action"), { method: "POST", body, credentials: "same-origin", signal: asked.signal });
    const html = await response.text();
    if (response.ok || response.status === 422) take(new DOMParser().parseFromString(html, "text/html"));
  } catch (error) {
    if (error.name === "AbortError") return;
  }
  checking.hidden = true;
}

const soon = debounced(350, check);
form.addEventListener("input", soon);
form.addEventListener("change", soon);

// A second click sends the same key, which the server answers with the same job; the button says that it was heard.
form.addEventListener("submit", (event) => {
  if (event.submitter?.value !== "submit") return;
  setTimeout(() => event.submitter.setAttribute("disabled", ""), 0);
});
addEventListener("pageshow", () => form.querySelector('button[value="submit"]').removeAttribute("disabled"));

if (byId("draft")) {
  keepDraft(form); // the form of a sweep has neither drafts nor presets to choose from
  filterPresets();
}
if (location.hash === "#all-presets") byId("all-presets").open = true;
byId("refusal-notice")?.focus();
