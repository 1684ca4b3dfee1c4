#!/usr/bin/python3 -I
"""A holder of Holdfast's root key: a key of OpenBao's transit engine per generation.
README.md says what that is worth, docs/holders.md has the protocol."""
import json, re, ssl, sys, urllib.error, urllib.request

ASKED = json.load(sys.stdin)
CONF = json.load(open(sys.argv[1]))  # address, mount, token_file, ca_file
TOKEN = open(CONF["token_file"]).read().strip()
NAME = "holdfast-" + ASKED["keyring"] + "-%d"
N = ASKED.get("generation", 0)
BEGINS = "vault:v1:"  # a key is never rotated: the next generation has another

def ask(method, path, **body):
    url = "%s/v1/%s/%s" % (CONF["address"], CONF.get("mount", "transit"), path)
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, {"X-Vault-Token": TOKEN}, method=method)
    tls = ssl.create_default_context(cafile=CONF.get("ca_file")) if url.startswith("https:") else None
    with urllib.request.urlopen(request, timeout=20, context=tls) as reply:
        return json.loads(reply.read() or "{}").get("data")

def held():
    try:
        names = ask("GET", "keys?list=true")["keys"]
    except urllib.error.HTTPError as e:
        if e.code != 404 or json.load(e)["errors"]:  # without errors: there is no key
            raise
        names = []
    ours = re.compile(re.escape(NAME % 0)[:-1] + "([1-9][0-9]*)")
    return sorted(int(m[1]) for m in map(ours.fullmatch, names) if m)

def answer(do):
    if do == "describe":
        return {"protocols": ["1"], "about": "keys of the transit engine at " + CONF["address"]}
    if do == "evidence":
        return {"generations": held()}
    if do == "prepare":  # which changes nothing if there is one
        ask("POST", "keys/" + NAME % N, type="aes256-gcm96")
        return {}
    if do == "destroy":
        for n in (n for n in held() if n < ASKED["below"]):
            ask("POST", "keys/%s/config" % (NAME % n), deletion_allowed=True)
            ask("DELETE", "keys/" + NAME % n)
        return {}
    if N not in held():  # asked first: encrypt may make a key that is not there
        return {"error": "gone"}
    if do == "wrap":
        box = ask("POST", "encrypt/" + NAME % N, plaintext=ASKED["key"])["ciphertext"]
        return {"box": box.removeprefix(BEGINS)} if box.startswith(BEGINS) else {"error": "unavailable", "why": "the key was rotated"}
    try:
        return {"key": ask("POST", "decrypt/" + NAME % N, ciphertext=BEGINS + ASKED["box"])["plaintext"]}
    except urllib.error.HTTPError as e:
        if e.code != 400:
            raise
        return {"error": "denied"}

try:
    said = answer(ASKED["do"])
except (OSError, ValueError, LookupError, TypeError) as e:
    said = {"error": "unavailable", "why": str(e)}
print(json.dumps({"holdfast-holder": "1", **said}))
