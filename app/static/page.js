// What every page has: the theme button, copying, the status line for screen readers.
import { copyText, postJson, say } from "./dom.js";

const THEMES = ["auto", "light", "dark"];

function remembered() {
  try {
    return localStorage.getItem("theme") ?? "auto";
  } catch {
    return "auto";
  }
}

function showTheme(button, theme) {
  for (const picture of button.querySelectorAll("[data-theme-is]")) picture.hidden = picture.dataset.themeIs !== theme;
  button.title = `Theme: ${theme}`;
  button.setAttribute("aria-label", `Theme: ${theme}`);
}

function setTheme(theme) {
  const root = document.documentElement;
  if (theme === "auto") delete root.dataset.theme;
  else root.dataset.theme = theme;
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // Then it holds for this page only.
  }
  dispatchEvent(new CustomEvent("fadrm:theme"));
}

function themeButton() {
  const button = document.getElementById("theme");
  let theme = remembered();
  button.hidden = false;
  showTheme(button, theme);
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    setTheme(theme);
    showTheme(button, theme);
    say(`Theme: ${theme}`);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new CustomEvent("fadrm:theme")));
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = document.getElementById(button.dataset.copy).textContent;
  say((await copyText(text)) ? "Copied" : "Copying is not allowed here: select the text instead");
  button.classList.add("copied");
  setTimeout(() => button.classList.remove("copied"), 1500);
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-link]");
  if (!button) return;
  const answer = await postJson(button.dataset.link, { name: button.dataset.name });
  const made = await answer.json();
  if (!answer.ok) return say(made.detail);
  const copied = await copyText(made.url);
  say(copied ? "Link copied: it works for a day, for whoever has it" : made.url);
});

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

themeButton();
document.querySelector(".nav a[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }); // on a telephone the bar is longer
for (const element of document.querySelectorAll("[data-needs-js]")) element.hidden = false;
