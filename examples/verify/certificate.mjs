// Verifies an erasure certificate of a Holdfast hub, without the hub and without
// Holdfast: Node 20 or later, nothing installed. Written from docs/format/certificate.md
// and docs/format/ledger.md alone.
//
//   node certificate.mjs FILE KEY [WITNESS KEY ...]
//
// KEY is the hub's verifier key, as you got it elsewhere. Every witness that is named
// must have cosigned. Exits 1 if anything was altered, 2 if it was called
// wrongly. What a holder gave as evidence,
// a TPM for one, it does not judge, and says so: holdfast verify does.
import { createHash, createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";

const [file, hubKey, ...witnessKeys] = process.argv.slice(2);
if (!hubKey) {
  console.error("Say what to verify: node certificate.mjs FILE KEY [WITNESS KEY ...]");
  process.exit(2);
}

function fail(why) {
  console.error("NOT VERIFIED: " + why);
  process.exit(1);
}
const sha256 = (...parts) => createHash("sha256").update(Buffer.concat(parts)).digest();
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

// Base64 as it is written: what decodes to the same and reads differently is altered.
function base64(text) {
  const b = Buffer.from(text, "base64");
  if (b.toString("base64") !== text) fail("not base64: " + text);
  return b;
}

// NAME+8 hexadecimal digits+base64(type ‖ Ed25519 key); type 1 signs notes, 4 cosigns.
function parseKey(text, type) {
  const [name, hash, key64] = text.split(/\+(.{8})\+(.*)$/s);
  const key = base64(key64 ?? "");
  if (key.length !== 33 || key[0] !== type) fail("not a verifier key: " + text);
  const id = sha256(Buffer.from(name + "\n"), key).subarray(0, 4);
  if (id.toString("hex") !== hash) fail("a verifier key that was altered: " + text);
  const der = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), key.subarray(1)]);
  return { name, id, key: createPublicKey({ key: der, format: "der", type: "spki" }) };
}

// A note: text, an empty line, signature lines "— NAME base64(id 4 ‖ signature)".
function openNote(note) {
  const at = note.lastIndexOf("\n\n");
  const lines = note.slice(at + 2).split("\n");
  if (at < 0 || lines.pop() !== "") fail("not a signed note");
  const sigs = lines.map((line) => line.match(/^— (\S+) (\S+)$/) ?? fail("not a signature: " + line));
  return { text: note.slice(0, at + 1), sigs: sigs.map(([, name, b]) => ({ name, raw: base64(b) })) };
}
const isBy = (sig, v) => sig.name === v.name && sig.raw.subarray(0, 4).equals(v.id);
function mustSign(note, v, what) {
  const sig = note.sigs.find((s) => isBy(s, v));
  if (!sig || !verify(null, Buffer.from(note.text), v.key, sig.raw.subarray(4))) fail("the signature of " + what);
}

const whole = readFileSync(file);
if (!Buffer.from(whole.toString("utf8")).equals(whole)) fail("not UTF-8");
const opened = whole.toString("utf8").split("\n\nholdfast erasure scope 2\n");
if (opened.length > 2) fail("more than one scope");
const hub = parseKey(hubKey, 1);

// 1. The certificate is signed by the hub, and by nobody else.
const note = openNote(opened.length > 1 ? opened[0] + "\n" : opened[0]);
const [header, ...body] = note.text.split("\n");
if (header !== "holdfast erasure certificate 2" || note.sigs.length !== 1) fail("not a certificate of version 2");
mustSign(note, hub, "the certificate");
const c = JSON.parse(body.join("\n"));
if (c.hub !== hub.name) fail("another hub's certificate");

// 2. The ledger's checkpoint is signed by the hub, and by every witness that was named.
const checkpoint = openNote(c.ledger.checkpoint);
mustSign(checkpoint, hub, "the ledger's checkpoint");
const [origin, sizeText, rootText] = checkpoint.text.split("\n");
if (origin !== hub.name || !/^[1-9][0-9]*$/.test(sizeText)) fail("not a checkpoint of this hub");
const witnessed = witnessKeys.map((text) => {
  const w = parseKey(text, 4);
  const sig = checkpoint.sigs.find((s) => isBy(s, w)) ?? fail("the witness has not cosigned: " + w.name);
  const time = sig.raw.readBigUInt64BE(4);
  const said = Buffer.from(`cosignature/v1\ntime ${time}\n${checkpoint.text}`);
  if (!verify(null, said, w.key, sig.raw.subarray(12))) fail("the cosignature of " + w.name);
  return `${w.name} (${new Date(Number(time) * 1000).toISOString()})`;
});

// 3. The ledger's entry is in the checkpoint's tree (RFC 9162, section 2.1.3.2).
const [salted, commitment] = [c.ledger.salted, c.ledger.commitment].map(base64);
if (!sha256(salted).equals(commitment)) fail("the ledger's entry is not what its leaf commits to");
let [fn, sn] = [BigInt(c.ledger.index), BigInt(sizeText) - 1n];
let hash = sha256(Buffer.from([0]), commitment);
if (fn > sn) fail("the entry is not in the checkpoint's tree");
for (const sibling of (c.ledger.hashes ?? []).map(base64)) {
  if (sn === 0n) fail("the proof is too long");
  if (fn & 1n || fn === sn) {
    hash = sha256(Buffer.from([1]), sibling, hash);
    while (!(fn & 1n) && fn !== 0n) [fn, sn] = [fn >> 1n, sn >> 1n];
  } else hash = sha256(Buffer.from([1]), hash, sibling);
  [fn, sn] = [fn >> 1n, sn >> 1n];
}
if (sn !== 0n || !hash.equals(base64(rootText))) fail("the entry is not in the checkpoint's tree");

// 4. The entry says the same as the certificate, whose grade is that of the weakest holder.
const entry = JSON.parse(salted.subarray(32));
const keys = c.keys_destroyed;
for (const f of ["owner_keys", "record_keys", "root_key_destroyed", "root_key_in_force"])
  if (!same(entry.data[f] ?? [], keys[f] ?? [])) fail("the ledger's entry has other " + f);
if (entry.kind !== "erasure done" || entry.data.scope_commitment !== c.scope_commitment) fail("the ledger's entry is of another erasure");
const weakest = keys.holders.length && keys.holders.every((h) => h.grade === "purge") ? "purge" : "clear";
if (keys.grade !== weakest) fail("the grade is not that of the weakest holder");

// 5. The scope behind the signature, if it is there, is the one committed to.
let scope = null;
if (opened.length > 1) {
  const [salt, line, end, ...more] = opened[1].split("\n");
  if (end !== "" || more.length || base64(salt).length !== 32) fail("the scope can't be read");
  if (!sha256(base64(salt), Buffer.from(line)).equals(base64(c.scope_commitment))) fail("another scope");
  scope = JSON.parse(line);
  const part = Boolean(scope.scope.streams?.length || scope.scope.from || scope.scope.month);
  const kept = [...new Set((scope.kept ?? []).map((k) => k.why))].sort();
  if (part !== Boolean(c.in_part) || !same(kept, c.kept ?? [])) fail("certificate and scope don't agree");
}
console.log(`VERIFIED: signed by ${hub.name}, entry ${c.ledger.index} of its ledger of ${sizeText} leaves`);
for (const w of witnessed) console.log("witnessed by " + w);
console.log(`keys destroyed ${keys.at}, root key ${keys.root_key_destroyed} (${keys.grade}); ciphertext gone ${c.ciphertext_purged}`);
for (const h of keys.holders) console.log(`holder ${h.holder}: ${h.state} (${h.grade})${h.evidence ? " NOT PROVEN: its evidence is not judged here" : ""}`);
const open = keys.holders.filter((h) => h.state === "pending").map((h) => "holder " + h.holder);
open.push(...(keys.copies_late ?? []).map((name) => "copy of the keyring " + name));
if (c.escrow.state === "pending") open.push("recovery shares of " + (c.escrow.names ?? []).join(", "));
if (checkpoint.sigs.length - 1 < (c.witnesses ?? 0)) open.push("witnesses of the ledger");
for (const what of open) console.log("pending: " + what);
console.log(scope ? `erasure ${scope.erasure} of party ${scope.party}, ${scope.scope.assignments.length} assignments` : "the scope is not shown");
