// Shows the OpenAPI document of this server. To try calls, give the page an access token with its Authorize button.
"use strict";

const main = document.getElementById("swagger-ui");
SwaggerUIBundle({
  domNode: main,
  url: main.dataset.document,
  deepLinking: true,
  validatorUrl: null,
});
