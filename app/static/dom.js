// Small tools for the other modules.

export const byId = (id) => document.getElementById(id);

/** One line for screen readers, and only one: the page's status. */
export function say(text) {
  const line = byId("status");
  if (line.textContent !== text) line.textContent = text;
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

export async function getJson(url) {
  const response = await fetch(url, { headers: { Accept: "application/json" }, credentials: "same-origin" });
  if (!response.ok) throw Object.assign(new Error(`${response.status} for ${url}`), { status: response.status });
  return response.json();
}

/** A page or a part of one, as a document to take pieces from. */
export async function getHtml(url) {
  const response = await fetch(url, { headers: { Accept: "text/html" }, credentials: "same-origin" });
  if (response.redirected && new URL(response.url).pathname === "/login") throw Object.assign(new Error("logged out"), { status: 401 });
  if (!response.ok) throw Object.assign(new Error(`${response.status} for ${url}`), { status: response.status });
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

export async function postJson(url, body, headers = {}) {
  const csrf = document.querySelector('meta[name="csrf-token"]').content;
  return fetch(url, {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/json", Accept: "application/json", "X-CSRF-Token": csrf, ...headers },
    body: JSON.stringify(body),
  });
}

/** An element with attributes and children: text stays text. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === undefined || value === null) continue;
    if (key === "text") element.textContent = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** The last call of a burst, after a pause; it can be called off. */
export function debounced(pause, action) {
  let timer = 0;
  const soon = (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => action(...given), pause);
  };
  soon.cancel = () => clearTimeout(timer);
  return soon;
}

/** At most one call a frame. */
export function eachFrame(action) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      action();
    });
  };
}

/** What a custom property comes to here and now, as a colour that a canvas understands. */
export function colour(name) {
  const probe = make("span", { hidden: true });
  probe.style.setProperty("color", `var(${name})`);
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

export const number = (value, digits = 3) => {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value !== 0 && (Math.abs(value) < 0.0001 || Math.abs(value) >= 1e5)) return value.toExponential(2);
  return Number(value.toPrecision(digits + 1)).toString();
};
