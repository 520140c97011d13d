// The reference of the API, drawn by Swagger UI from our own openapi.json. It asks nobody else.
const place = document.getElementById("swagger");
const csrf = document.querySelector('meta[name="csrf-token"]').content;

function matchTheme() {
  const { theme } = document.documentElement.dataset;
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.classList.toggle("dark-mode", dark);
}

matchTheme();
addEventListener("fadrm:theme", matchTheme);

globalThis.SwaggerUIBundle({
  domNode: place,
  url: place.dataset.openapi,
  validatorUrl: null,
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  onComplete: () => place.querySelector("main")?.setAttribute("role", "presentation"), // the page has a main part already
  requestInterceptor: (request) => {
    request.headers["X-CSRF-Token"] = csrf;
    return request;
  },
});
