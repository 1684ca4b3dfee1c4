"""Puts recovery shares together, from docs/format/recovery.md alone: prints the seed."""
import base64, sys


def times(a, b):  # in GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1
    out = 0
    while b:
        if b & 1:
            out ^= a
        a = (a << 1) ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return out


def inverse(a):
    return next(b for b in range(1, 256) if times(a, b) == 1)


points = []
for path in sys.argv[1:]:
    line = dict(l.split(" ", 1) for l in open(path).read().splitlines())
    points.append((int(line["x"]), base64.b64decode(line["y"])))
seed = bytearray(32)
for x, y in points:
    weight = 1
    for other, _ in points:
        if other != x:
            weight = times(weight, times(other, inverse(x ^ other)))
    for i in range(32):
        seed[i] ^= times(weight, y[i])
print(seed.hex())
