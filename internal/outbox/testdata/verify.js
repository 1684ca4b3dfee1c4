// Checks one webhook with the npm package standardwebhooks: node verify.js FOLDER < {"secret", "headers", "body"}
const path = require("path");
const { Webhook } = require(path.join(process.argv[2], "node_modules", "standardwebhooks"));
const { secret, headers, body } = JSON.parse(require("fs").readFileSync(0, "utf8"));
new Webhook(secret).verify(body, headers); // throws what it does not take
console.log("taken");
