// Reads JSON-LD documents, one file each, with jsonld.js in safe mode: a term that
// its context does not explain, or an IRI that is not absolute, is an error.
// Prints the canonical N-Quads of each as JSON.
const { createRequire } = require("node:module");
const { readFileSync } = require("node:fs");
const jsonld = createRequire(process.env.HOLDFAST_JSONLD + "/")("jsonld");

async function main() {
  const all = [];
  for (const file of process.argv.slice(2)) {
    const doc = JSON.parse(readFileSync(file, "utf8"));
    const documentLoader = (url) => { throw new Error("asks the network for " + url); };
    const options = { safe: true, documentLoader };
    await jsonld.expand(doc, options);
    all.push(await jsonld.canonize(doc, { ...options, algorithm: "RDFC-1.0", format: "application/n-quads" }));
  }
  console.log(JSON.stringify(all));
}

main().catch((e) => { console.error(e.message, JSON.stringify(e.details ?? {})); process.exit(1); });
