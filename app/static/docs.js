// The reference of the API, drawn by Swagger UI from our own openapi.json. It asks nobody else.
const place = document.getElementById("swagger");
const csrf = document.querySelector('meta[name="csrf-token"]').content;

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
