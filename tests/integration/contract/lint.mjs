// Prints what a linter has to say about an OpenAPI file, one line each.
import { createConfig, lint } from "@redocly/openapi-core";

const config = await createConfig({
  extends: ["recommended-strict"],
  rules: {
    "no-server-example.com": "off", // it is the internal port, which has no address that all share
    "operation-4xx-response": "off", // every failure is a problem document, also one with another status
    // A schema that an example's schema refers to does not know the other's properties.
    "no-invalid-media-type-examples": { severity: "error", allowAdditionalProperties: true },
  },
});
for (const p of await lint({ ref: process.argv[2], config })) {
  console.log(`${p.ruleId}: ${p.message} ${p.location[0].pointer}`);
}
