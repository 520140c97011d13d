// Parts of a page as the server renders them now. What is under the pointer or has the focus stays until it is left.
import { getHtml } from "./dom.js";

const waiting = new WeakSet();

/** Fetch this address with `part=true`, and put each `[data-part]` in its place. Returns the document that came. */
export async function replaceParts(root) {
  const address = new URL(location.href);
  address.searchParams.set("part", "true");
  const fresh = await getHtml(address);
  const parts = [...fresh.querySelectorAll("[data-part]")];
  for (const old of root.querySelectorAll("[data-part]")) {
    const part = parts.find((one) => one.dataset.part === old.dataset.part);
    if (!part) old.remove();
    else if (old.matches(":hover") || old.contains(document.activeElement)) later(old, root);
    else if (old.innerHTML !== part.innerHTML) old.replaceChildren(...part.childNodes);
  }
  const known = new Set([...root.querySelectorAll("[data-part]")].map((old) => old.dataset.part));
  for (const part of parts) if (!known.has(part.dataset.part)) root.append(part);
  for (const element of root.querySelectorAll("[data-needs-js]")) element.hidden = false;
  return fresh;
}

function later(part, root) {
  if (waiting.has(part)) return;
  waiting.add(part);
  const again = () => {
    if (part.matches(":hover") || part.contains(document.activeElement)) return;
    waiting.delete(part);
    for (const kind of ["pointerleave", "focusout"]) part.removeEventListener(kind, soon);
    replaceParts(root).catch(() => {}); // the next hint tries again
  };
  const soon = () => setTimeout(again, 200);
  for (const kind of ["pointerleave", "focusout"]) part.addEventListener(kind, soon);
}
