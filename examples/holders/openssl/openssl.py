#!/usr/bin/python3 -I
"""A holder of Holdfast's root key: an RSA key of openssl per generation, in a folder.
README.md says what that is worth, docs/holders.md has the protocol."""
import base64, json, os, re, subprocess, sys

ASKED = json.load(sys.stdin)
RING, N = ASKED["keyring"], ASKED.get("generation", 0)
if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", RING):
    sys.exit("odd name of a keyring")
DIR = os.path.join(sys.argv[1], RING)
os.umask(0o077)

def path(n):
    return os.path.join(DIR, "%d.pem" % n)

def held():
    names = os.listdir(DIR) if os.path.isdir(DIR) else []
    return sorted(int(n[:-4]) for n in names if re.fullmatch(r"[0-9]+\.pem", n))

def sync(name, over=b""):
    fd = os.open(name, os.O_RDWR if over else os.O_RDONLY)
    os.write(fd, over) if over else None
    os.fsync(fd)
    os.close(fd)

def prepare():
    os.makedirs(DIR, exist_ok=True)
    sync(sys.argv[1])
    temp = path(N) + ".new"  # renamed when it is whole and durable
    subprocess.run(["openssl", "genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-out", temp], check=True, stderr=subprocess.DEVNULL)
    sync(temp)
    os.rename(temp, path(N))
    sync(DIR)

def destroy(n):
    sync(path(n), b"\0" * os.path.getsize(path(n)))
    os.remove(path(n))
    sync(DIR)

def rsa(do, name, out):  # OAEP sees what was altered; its label binds keyring and generation
    options = "rsa_padding_mode:oaep", "rsa_oaep_md:sha256", "rsa_mgf1_md:sha256", "rsa_oaep_label:" + ("%s %d" % (RING, N)).encode().hex()
    command = ["openssl", "pkeyutl", do, "-inkey", path(N)] + [w for o in options for w in ("-pkeyopt", o)]
    ran = subprocess.run(command, input=base64.b64decode(ASKED[name]), capture_output=True)
    return {out: base64.b64encode(ran.stdout).decode()} if ran.returncode == 0 else {"error": "unavailable" if do == "-encrypt" else "denied"}

answer, do = {}, ASKED["do"]
if do == "describe":
    answer = {"protocols": ["1"], "about": "RSA keys of openssl in " + sys.argv[1]}
elif do == "prepare" and N not in held():
    prepare()
elif do == "destroy":
    [destroy(n) for n in held() if n < ASKED["below"]]
elif do == "evidence":
    answer = {"generations": held()}
elif do in ("wrap", "unwrap"):
    answer = {"error": "gone"} if N not in held() else rsa("-encrypt", "key", "box") if do == "wrap" else rsa("-decrypt", "box", "key")
print(json.dumps({"holdfast-holder": "1", **answer}))
