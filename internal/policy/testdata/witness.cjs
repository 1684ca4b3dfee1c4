// Decides what policy's tests drew, with Cedar's reference engine: one JSON document
// in, {validation, answers} out. Argument: the folder that has node_modules.
const { readFileSync } = require("node:fs");
const cedar = require(process.argv[2] + "/node_modules/@cedar-policy/cedar-wasm/nodejs/cedar_wasm.js");

const schema = JSON.parse(readFileSync(0, "utf8"));
const out = schema.worlds.map((world) => {
  const policies = { staticPolicies: world.policies };
  const checked = cedar.validate({ schema: schema.schema, policies, validationSettings: { mode: "strict" } });
  const errors = checked.type === "success" ? checked.validationErrors.map((e) => e.policyId + ": " + e.error.message) : checked.errors.map((e) => e.message);
  const answers = world.requests.map((r) => {
    const answer = cedar.isAuthorized({ ...r, schema: schema.schema, validateRequest: true, policies });
    if (answer.type !== "success") return { errors: answer.errors.map((e) => e.message) };
    const { decision, diagnostics } = answer.response;
    return { decision, reason: diagnostics.reason.slice().sort(), errors: diagnostics.errors.map((e) => e.policyId) };
  });
  return { errors, answers };
});
process.stdout.write(JSON.stringify({ version: cedar.getCedarSDKVersion(), worlds: out }));
