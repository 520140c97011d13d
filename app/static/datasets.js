// An archive, or weights, are sent in pieces (tus), so that a break, or another visit, goes on where it ended.
import { byId, make, say } from "./dom.js";

const PIECE = 8 * 2 ** 20;
const CSRF = document.querySelector('meta[name="csrf-token"]').content;
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function ask(method, url, { headers = {}, body } = {}) {
  const all = { Accept: "application/json", "X-CSRF-Token": CSRF, ...headers };
  const response = await fetch(url, { method, headers: all, body, credentials: "same-origin" });
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({ detail: `The server answered ${response.status}.`, hint: "" }));
  throw Object.assign(new Error(problem.detail), { problem, status: response.status });
}

function tell(problem) {
  const files = problem.details?.files ?? [];
  const text = make("div", {}, make("p", { text: `${problem.detail} ${problem.hint ?? ""}` }));
  if (files.length > 1) text.append(make("ul", { class: "small" }, ...files.map((file) => make("li", { text: `${file.name}: ${file.reason}` }))));
  byId("refused").replaceChildren(make("div", { class: "notice bad" }, text));
}

const placeOf = (file, told) => `upload ${file.name} ${file.size} ${file.lastModified} ${Object.values(told).join(" ")}`;

function remember(place, id) {
  try {
    if (id) localStorage.setItem(place, id);
    else localStorage.removeItem(place);
  } catch {
    // Then it goes on only while this page is open.
  }
}

function remembered(place) {
  try {
    return localStorage.getItem(place);
  } catch {
    return null;
  }
}

const base64 = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));

async function begun(place, file, told) {
  const id = remembered(place);
  if (id) {
    try {
      const known = await (await ask("GET", `/api/v1/uploads/${id}`)).json();
      if (known.state !== "refused") return known;
    } catch (error) {
      if (error.status !== 404) throw error;
    }
  }
  const metadata = Object.entries(told).map(([name, value]) => `${name} ${base64(value)}`).join(",");
  const made = await (await ask("POST", "/api/v1/uploads", { headers: { "Upload-Length": String(file.size), "Upload-Metadata": metadata } })).json();
  remember(place, made.id);
  return made;
}

async function sendPiece(url, file, offset) {
  const headers = { "Upload-Offset": String(offset), "Content-Type": "application/offset+octet-stream" };
  try {
    const response = await ask("PATCH", url, { headers, body: file.slice(offset, offset + PIECE) });
    return Number(response.headers.get("Upload-Offset"));
  } catch (error) {
    if (error.status && error.status !== 409 && error.status < 500) throw error;
    await wait(2000); // the line, or the server, is away: ask where it ended
    try {
      return (await (await ask("GET", url)).json()).offset;
    } catch (gone) {
      if (gone.status && gone.status < 500) throw gone;
      return offset; // and again, until it is back, or one has had enough
    }
  }
}

async function finished(url) {
  for (;;) {
    try {
      return await (await ask("POST", `${url}/finish`)).json();
    } catch (error) {
      if (error.status !== 409 && error.status !== 503) throw error;
      await wait(2000);
    }
  }
}

/** What the server is told of a file, besides its title. */
function toldOf(form) {
  if (form.dataset.kind === "weights") return { kind: "weights", network: form.elements.namedItem("network").value };
  return { skip_bad: String(form.elements.namedItem("skip_bad").checked) };
}

function sending(form) {
  const bar = byId("sent-bar");
  const text = byId("sent-text");
  const halt = byId("halt");
  const button = form.querySelector('button[type="submit"]');
  let halted = false;
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
  const show = (done, total) => {
    bar.value = total ? done / total : 1;
    text.textContent = done < total ? `${megabytes(done)} of ${megabytes(total)} sent` : "All is sent. It is being looked at.";
  };
  halt.addEventListener("click", () => (halted = true));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const file = byId("file").files[0];
    if (!file) return;
    const told = toldOf(form);
    const place = placeOf(file, told);
    halted = false;
    byId("refused").replaceChildren();
    button.disabled = true;
    byId("sent").hidden = halt.hidden = false;
    try {
      const title = byId("title").value.trim() || file.name.replace(/\.(zip|safetensors)$/i, "").slice(0, 80);
      const known = await begun(place, file, { title, ...told });
      const url = `/api/v1/uploads/${known.id}`;
      let offset = known.offset;
      while (offset < file.size && !halted) {
        show(offset, file.size);
        offset = await sendPiece(url, file, offset);
      }
      show(offset, file.size);
      if (halted) {
        say("Paused. Upload the same file to go on.");
        text.textContent = `Paused at ${megabytes(offset)} of ${megabytes(file.size)}. Upload the same file to go on.`;
      } else {
        const made = await finished(url);
        remember(place, null);
        location.assign(told.kind === "weights" ? "/teachers" : `/datasets/uploads/${made.id}`);
      }
    } catch (error) {
      if (error.status === 422) remember(place, null);
      tell(error.problem ?? { detail: "The server cannot be reached.", hint: "Upload the same file again to go on." });
      byId("sent").hidden = true;
    }
    button.disabled = false;
    halt.hidden = true;
  });
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-remove]");
  if (!button || (button.dataset.question && !confirm(button.dataset.question))) return;
  try {
    await ask("DELETE", button.dataset.remove);
    location.assign(button.dataset.then ?? location.pathname);
  } catch (error) {
    tell(error.problem ?? { detail: "The server cannot be reached.", hint: "" });
  }
});

if (byId("send")) sending(byId("send"));
