"""What people write in Python to read the TCP table: the plain way, and the best we know. Each returns what changed."""

import socket
import struct

STATES = {f"{number:02X}": number for number in range(1, 13)}


def read_plainly(known):
    """Every line split, every address decoded, a dictionary compared."""
    seen = {}
    for name in ("tcp", "tcp6"):
        with open(f"/proc/self/net/{name}", encoding="ascii") as file:
            next(file)
            for line in file:
                columns = line.split()
                local, remote = (decode(side) for side in columns[1:3])
                seen[local, remote] = (STATES[columns[3]], int(columns[9]))
    changed = {key for key, value in seen.items() if known.get(key) != value} | known.keys() - seen.keys()
    return seen, changed


def decode(side):
    address, port = side.split(":")
    words = [struct.pack("=I", int(address[i : i + 8], 16)) for i in range(0, len(address), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, b"".join(words)), int(port, 16)


def read_by_slices(known):
    """Fixed places of unread bytes in a set: what stands as it stood is not decoded. Rows of tcp have 150 bytes."""
    with open("/proc/self/net/tcp", "rb", buffering=0) as file:
        text = file.read()
        while more := file.read(1 << 20):
            text += more
    with open("/proc/self/net/tcp6", "rb", buffering=0) as file:
        rest = {line[5:] for line in file.read().split(b"\n")[1:]}
    seen = {text[i + 6 : i + 54] + text[i + 90 : i + 102] for i in range(150, len(text), 150)} | rest
    return seen, seen ^ known
