"""A device in Python, standard library only: sends a batch over HTTPS, and keeps it until it is durable.

    python3 device.py IDENTITY https://HUB:8444 [BATCHES]
"""
import json
import random
import ssl
import sys
import time
import urllib.error
import urllib.request

identity, hub = sys.argv[1], sys.argv[2]
batches = int(sys.argv[3]) if len(sys.argv) > 3 else 0  # 0: for ever

tls = ssl.create_default_context(cafile=f"{identity}/ca.pem")  # trust the hub's own authority alone
tls.load_cert_chain(f"{identity}/cert.pem", f"{identity}/key.pem")  # the certificate says who it is


def send(pack):
    """Returns when the hub has it on disk. An equal reading that is sent twice is kept once."""
    body = json.dumps(pack).encode()
    request = urllib.request.Request(hub + "/v1/data", body, {"Content-Type": "application/senml+json"})
    pause = 1
    while True:
        try:
            urllib.request.urlopen(request, timeout=30, context=tls).close()
            return
        except urllib.error.HTTPError as e:
            if e.code < 500 and e.code != 429:  # it says what to change; again is of no use
                sys.exit(f"refused: {json.load(e).get('detail')}")
            pause = int(e.headers.get("Retry-After", pause))
        except OSError as e:
            print("not sent yet:", e, file=sys.stderr)
        time.sleep(pause + random.random())
        pause = min(2 * pause, 60)


sent = 0
while not batches or sent < batches:
    pack = [{"bn": "room/", "bt": time.time(), "n": "temperature", "u": "Cel", "v": round(random.gauss(21, 0.5), 2)}]
    pack.append({"n": "door", "vb": random.random() < 0.1})
    send(pack)
    sent += 1
    print(f"{sent} stored")
    time.sleep(10 if not batches else 0.05)
