"""Reads recordings without any code of ours.

    cast.py pick [KEY=VALUE...] < castkeep ls --json     ids of the recordings that all of it is true of
    cast.py tell FILE stdout|stderr|input|markers|sizes|exit|header [KEY]
"""

import base64
import json
import sys


def pick(wanted):
    wanted = dict(w.split("=", 1) for w in wanted)
    for line in sys.stdin:
        one = json.loads(line)
        if all(str(one.get(k)) == v for k, v in wanted.items()):
            print(one["id"])


def tell(path, what, key=None):
    out = sys.stdout.buffer
    stream, last, exact = "stdout", None, {"stdout": [], "stderr": [], "input": []}
    markers, sizes, end = [], [], None
    with open(path, "rb") as file:
        header = json.loads(file.readline())
        for line in file:
            event = json.loads(line)
            if isinstance(event, dict):
                continue
            code, data = event[1], event[2]
            if code == "b" and last is not None:
                # The exact bytes from a position on.
                at, coded = data.split(":", 1)
                coded += "=" * (-len(coded) % 4)
                last[-1] = last[-1][: int(at)] + base64.b64decode(coded)
                continue
            last = None
            if code in "oi":
                last = exact["input" if code == "i" else stream]
                last.append(data.encode())
            elif code == "m" and data in ("castkeep:stdout", "castkeep:stderr"):
                stream = data[9:]
            elif code == "m":
                markers.append(data)
            elif code == "r":
                sizes.append(data)
            elif code == "x":
                end = data
    if what in exact:
        out.write(b"".join(exact[what]))
    elif what == "markers":
        print("\n".join(markers))
    elif what == "sizes":
        print("\n".join(sizes))
    elif what == "exit":
        print(end)
    elif what == "header":
        for part in (key or "").split("."):
            header = header.get(part) if part else header
        print(header)


if sys.argv[1] == "pick":
    pick(sys.argv[2:])
else:
    tell(*sys.argv[2:])
