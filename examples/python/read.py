"""Reads readings back, standard library only.

    holdfast token add reader --purpose operation --out reader.token --data DATA
    python3 read.py reader.token ca.pem https://HUB:8443 DEVICE STREAM [FROM]
"""
import json
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request

token, ca, hub, device, stream = sys.argv[1:6]
start = sys.argv[6] if len(sys.argv) > 6 else "-1h"

tls = ssl.create_default_context(cafile=ca)
with open(token) as f:
    headers = {"Authorization": "Bearer " + f.read().strip(), "Accept": "application/x-ndjson"}

cursor = ""
while True:
    ask = {"device": device, "stream": stream, "from": start, "limit": 1000, "cursor": cursor}
    url = hub + "/v1/readings?" + urllib.parse.urlencode({k: v for k, v in ask.items() if v})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60, context=tls)
    except urllib.error.HTTPError as e:
        sys.exit(f"refused: {json.load(e).get('detail')}")
    cursor = ""
    for line in answer:
        row = json.loads(line)
        if "value" in row:
            print(row["time"], row["value"], row.get("unit", ""))
        else:
            cursor = row.get("next", "")
    if not cursor:
        break
