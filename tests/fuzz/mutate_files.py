"""Mutations of files: of their bytes, and of what lies inside of zip, gzip, pickle and headers, so that checksums hold."""

import gzip
import io
import pickletools
import struct
import zipfile
from random import Random

TOKENS = (
    *(b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0" * 8, b"\xff" * 8, b"99999999", b"-1", b"[]", b"NaN"),
    *(b"R", b"\x81", b"b", b"(", b"t", b".", b"0", b"2", b"N", b"}", b"]", b"Q", b"h\0", b"q\xff", b"\x93"),
)


def mutated(rng: Random, files: dict[str, bytes]) -> tuple[str, bytes]:
    """A file of the corpus with one to four mutations: its name, and its new content."""
    name = rng.choice(sorted(files))
    content = files[name]
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = rng.choice((_bytes, _inside, _inside))(rng, content, files)
    return name, content


def _bytes(rng: Random, content: bytes, files: dict[str, bytes]) -> bytes:
    data = bytearray(content or b"\0")
    place = rng.randrange(len(data))
    kind = rng.choice(("bits", "bits", "cut", "token", "splice", "repeat", "drop", "zeros"))
    length = min(rng.choice((1, 4, 16, 200)), len(data) - place)
    if kind == "bits":
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[place:]
    elif kind == "token":
        token = rng.choice(TOKENS)
        data[place : place + len(token)] = token
    elif kind == "splice":
        other = files[rng.choice(sorted(files))]
        data[place:] = other[rng.randrange(len(other)) :]
    elif kind == "repeat":
        data[place:place] = data[place : place + length] * rng.choice((1, 3, 50))
    elif kind == "drop":
        del data[place : place + length]
    else:
        data[place : place + length] = bytes(length)
    return bytes(data)


def _inside(rng: Random, content: bytes, files: dict[str, bytes]) -> bytes:
    if content.startswith(b"PK"):
        return _zip(rng, content, files)
    if content.startswith(b"\x1f\x8b"):
        try:
            return gzip.compress(_bytes(rng, gzip.decompress(content), files), mtime=0)
        except Exception:
            return _bytes(rng, content, files)
    if content[:1] == b"\x80" and content[1:2] < b"\6":
        return _opcodes(rng, content)
    if content[8:9] == b"{":
        size = struct.unpack("<Q", content[:8])[0]
        header = _bytes(rng, content[8 : 8 + size], files)
        return struct.pack("<Q", len(header)) + header + content[8 + size :]
    return _bytes(rng, content, files)


def _zip(rng: Random, content: bytes, files: dict[str, bytes]) -> bytes:
    """Another content, name or packing of one member; its checksum is right."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except Exception:
        return _bytes(rng, content, files)
    pickles = [index for index, (name, _) in enumerate(members) if name.endswith((".pkl", ".npy"))]
    chosen = rng.choice(pickles) if pickles and rng.random() < 0.8 else rng.randrange(len(members)) if members else None
    if chosen is not None:
        name, data = members[chosen]
        change = rng.random()
        if change < 0.1:
            members[chosen] = (name + rng.choice(("", "x", "/../y")), data)
        elif change < 0.2:
            members.append((name, data))
        else:
            members[chosen] = (name, _opcodes(rng, data) if name.endswith(".pkl") else _bytes(rng, data, files))
    packing = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with io.BytesIO() as stream:
        with zipfile.ZipFile(stream, "w", packing) as archive:
            for name, data in members:
                archive.writestr(name, data)
        return stream.getvalue()


def _opcodes(rng: Random, content: bytes) -> bytes:
    """Opcodes of the first pickle left out, doubled, moved, replaced, or given other arguments; what follows stays."""
    stream = io.BytesIO(content)
    try:
        starts = [place for _, _, place in pickletools.genops(stream)]
    except Exception:
        return _bytes(rng, content, {"": content})
    end = stream.tell()
    operations = [content[a:b] for a, b in zip(starts, [*starts[1:], end], strict=True)]
    for _ in range(rng.choice((1, 1, 3))):
        place = rng.randrange(len(operations))
        kind = rng.choice(("drop", "double", "swap", "other", "token", "argument"))
        if kind == "drop":
            operations[place] = b""
        elif kind == "double":
            operations[place] *= rng.choice((2, 2, 30))
        elif kind == "swap":
            other = rng.randrange(len(operations))
            operations[place], operations[other] = operations[other], operations[place]
        elif kind == "other":
            operations[place] = rng.choice(operations)
        elif kind == "token":
            operations[place] = rng.choice(TOKENS)
        elif len(operations[place]) > 1:
            argument = bytearray(operations[place])
            argument[rng.randrange(1, len(argument))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            operations[place] = bytes(argument)
    return b"".join(operations) + content[end:]
