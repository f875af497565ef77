"""Seeded damage to files: what disks, networks, editors and other programs do to them."""

import gzip
import io
import json
import math
import struct

import numpy as np

from tunet_lib.files import DIGEST_BYTES, with_digest

NUMBERS = [0, -1, 1, 2, 255, 32767, -32768, 2**31 - 1, 2**63, 10**400, 0.5, -0.0]
FLOATS = [math.nan, math.inf, -math.inf, 1e-45, 1e-3, 1e4, 1e30, -1e30, 0.0, -1.0]
VALUES = [
    *(None, True, False, "", "x", "nan", "../../escape", "/etc/passwd", "a\0b", "²", "\ud800", "é"),
    *([], {}, [[]], [1, 2, 3], {"a": 1}, [None], "x" * 5000, *NUMBERS, *FLOATS),
]
# Offset and format of the fields of a NIfTI-1 header.
FIELDS = [
    *((0, "i"), (39, "B"), (68, "f"), (70, "h"), (72, "h"), (108, "f"), (112, "f"), (116, "f")),
    *((123, "B"), (124, "f"), (136, "f"), (252, "h"), (254, "h"), (344, "4s")),
    *((40 + 2 * k, "h") for k in range(8)),
    *((76 + 4 * k, "f") for k in range(8)),
    *((256 + 4 * k, "f") for k in range(18)),
]


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def any_bytes(content: bytes, rng) -> bytes:
    """Damage a file without a look at what it is."""
    content, kind = bytearray(content), int(rng.integers(6))
    size = len(content)
    if kind == 0:
        return bytes(content[: int(rng.integers(size + 1))])
    if kind == 1:
        return bytes(content) + rng.bytes(int(rng.integers(1, 5000)))
    if kind == 2:
        start = int(rng.integers(size))
        content[start : start + int(rng.integers(1, 600))] = rng.bytes(int(rng.integers(0, 600)))
        return bytes(content)
    if kind == 3:
        start = int(rng.integers(size))
        length = int(rng.integers(1, 2000))
        content[start : start + length] = bytes(len(content[start : start + length]))
        return bytes(content)
    for _ in range(int(rng.integers(1, 9))):
        content[int(rng.integers(size))] ^= 1 << int(rng.integers(8))
    return bytes(content)


def nifti(content: bytes, rng) -> bytes:
    """Damage a NIfTI: its bytes as they lie on disk, or those within the gzip, or its header."""
    packed = content[:2] == b"\x1f\x8b"
    if rng.random() < 0.2:
        return any_bytes(content, rng)
    raw = bytearray(gzip.decompress(content) if packed else content)
    kind = rng.random()
    if kind < 0.7:
        for _ in range(int(rng.integers(1, 4))):
            offset, code = pick(rng, FIELDS)
            raw[offset : offset + struct.calcsize(code)] = _field(code, rng)
    elif kind < 0.85:
        for _ in range(int(rng.integers(1, 9))):
            raw[int(rng.integers(min(348, len(raw))))] = int(rng.integers(256))
    else:
        raw = bytearray(any_bytes(bytes(raw), rng))
    if rng.random() < 0.02:
        raw += bytes(1 << 26)  # a bomb, once it is packed
    return gzip.compress(bytes(raw), 1) if packed else bytes(raw)


def _field(code: str, rng) -> bytes:
    order = "<" if rng.random() < 0.9 else ">"
    if code == "f":
        value = pick(rng, FLOATS) if rng.random() < 0.7 else float(rng.normal(0, 100))
        return struct.pack(f"{order}f", value)
    if code == "4s":
        return rng.bytes(4)
    low, high = {"h": (-(2**15), 2**15), "i": (-(2**31), 2**31), "B": (0, 256)}[code]
    few = [0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 128, 256, 512, 768, 1536, 2304, high - 1, low]
    value = pick(rng, few) if rng.random() < 0.7 else int(rng.integers(low, high))
    return struct.pack(f"{order}{code}", min(max(value, low), high - 1))


TEXTS = [
    *(b"nan", b"inf", b"-1e308", b"1e30", b"0", b"-1", b"0.5", b"1\\2", b"1,5", b"x", b"", b"\xff"),
    *(
        b"1\\0\\0\\1\\0\\0",
        b"0\\0\\0",
        b"1.2.3",
        b"1.2.840.10008.5.1.4.1.1.2.1",
        b"1.2.840.10008.1.2.5",
    ),
    *(b"MONOCHROME1", b"LOCALIZER", b"MR", b"../../x", b"\x1b[31m"),
]
WORDS = [0, 1, 7, 8, 11, 12, 15, 16, 17, 32, 33, 64, 255, 4096, 32767, 65535]


def dicom(content: bytes, rng) -> bytes:
    """Damage a file of DICOM: values and lengths of its elements, its pixels, or any bytes."""
    kind = rng.random()
    if kind < 0.2:
        return any_bytes(content, rng)
    if kind < 0.3:  # random bytes in place of the pixels' end, or behind it
        stop = len(content) - int(rng.integers(-1, 600))
        return content[:stop] + rng.bytes(int(rng.integers(1, 1000)))
    raw = bytearray(content)
    elements = _elements(content)
    for _ in range(int(rng.integers(1, 3))):
        at, length, is_text = pick(rng, elements)
        if kind < 0.4:
            size = pick(rng, [2, 4])
            raw[at - size : at] = pick(rng, [b"\xff" * 4, bytes(4), rng.bytes(4)])[:size]
        elif is_text:
            raw[at : at + length] = pick(rng, TEXTS).ljust(length)[:length]
        else:
            raw[at : at + length] = (
                pick(rng, WORDS).to_bytes(2, "little").ljust(length, b"\0")[:length]
            )
    return bytes(raw)


def _elements(content: bytes):
    """Find the values of a file of DICOM: where they begin, how long they are, if they are text."""
    from pydicom import dcmread

    data = dcmread(io.BytesIO(content))
    tags = [(part, tag) for part in (data.file_meta, data) for tag in list(part.keys())]
    found = [part.get_item(tag) for part, tag in tags]
    return [
        (each.value_tell, each.length, str(each.VR) not in ("US", "UL", "OW", "OB"))
        for each in found
        if 0 < getattr(each, "length", 0) < len(content)
    ]


def text_of(name: str, content: bytes, rng) -> bytes:
    """Damage JSON or CSV in its structure, or as bytes."""
    if rng.random() < 0.25:
        return any_bytes(content, rng)
    if name.endswith(".csv"):
        return _csv(content.decode(), rng).encode("utf-8", "surrogatepass")
    special = [b"", b"[" * 100_000, b'{"a":' * 50_000, b"\xef\xbb\xbf" + content, b"NaN", b"null"]
    if rng.random() < 0.1:
        return pick(rng, special)
    value = _json(json.loads(content), rng)
    return json.dumps(value).encode()


def _json(value, rng):
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = pick(rng, list(keys))
        kind = rng.random()
        if kind < 0.15:
            del value[key]
        elif kind < 0.3 and isinstance(value, list):
            value.append(value[key])
        elif kind < 0.3:
            value["more"] = pick(rng, VALUES)
        else:
            value[key] = _json(value[key], rng)
        return value
    return pick(rng, VALUES)


def _csv(text: str, rng) -> str:
    lines = [line.split(",") for line in text.splitlines()]
    for _ in range(int(rng.integers(1, 4))):
        line = pick(rng, lines)
        if line:
            line[int(rng.integers(len(line)))] = str(pick(rng, VALUES))
    if rng.random() < 0.2:
        lines.append(pick(rng, lines))
    if rng.random() < 0.1:
        pick(rng, lines).pop()
    if rng.random() < 0.05:
        lines.append(["9" * 200_000])  # longer than a field of csv may be
    return "\n".join(map(",".join, lines))


def npy(content: bytes, rng) -> bytes:
    """Damage an array: its header in the values that it holds, or as bytes."""
    if rng.random() < 0.4:
        return any_bytes(content, rng)
    start = content.index(b"{")
    stop = content.index(b"\n", start)
    shape = pick(rng, [(), (1,), (-1, 2, 3), (2**62, 2**62), (2**40,), (0, 0, 0), (10**30,)])
    kind = pick(rng, ["<f2", "|O", ">f8", "|V4", "<M8[s]", "|S9", "x", "<f2, <i4"])
    changes = [("shape", shape), ("descr", kind), ("fortran_order", True), ("more", 1)]
    header = {"descr": "<f2", "fortran_order": False, "shape": (8, 16, 16)}
    header |= dict([pick(rng, changes)])
    text = repr(header).encode().ljust(stop - start)
    return content[:start] + text[: stop - start] + content[stop:]


def damaged(name: str, content: bytes, rng) -> bytes:
    """Damage a file in the way that suits its kind."""
    if name.endswith((".json", ".csv")):
        return text_of(name, content, rng)
    if name.endswith(".npy"):
        body = npy(content[:-DIGEST_BYTES], rng)
        # With a digest of its own it gets as far as what looks at its header.
        return with_digest(body) if rng.random() < 0.7 else body + content[-DIGEST_BYTES:]
    return any_bytes(content, rng)


def generator(*seed: int):
    return np.random.default_rng(seed)
