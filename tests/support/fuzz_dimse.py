"""What nobody should send to a DICOM listener: PDUs of PS3.8 9.3 that break off, lie or make no
sense, and callers that do not go on."""

import random
import socket
import struct
from collections.abc import Callable, Mapping

Chance = random.Random
APPLICATION = b"1.2.840.10008.3.1.1.1"
CT_STORAGE = b"1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = b"1.2.840.10008.1.2.1"
LENGTHS = (0, 1, 3, 5, 0xFFFF, 2**21, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
ANSWER_S = 0.1


def request(*, title: bytes = b"AQCF", contexts: int = 1, abstract: bytes = CT_STORAGE) -> bytes:
    """An A-ASSOCIATE-RQ that is right."""
    proposed = b"".join(
        _item(0x20, bytes([2 * number % 255 + 1, 0, 0, 0]) + _item(0x30, abstract)
              + _item(0x40, EXPLICIT))
        for number in range(contexts)
    )  # fmt: skip
    user = _item(0x50, _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"1.2.3"))
    fixed = struct.pack(">2H", 1, 0) + title.ljust(16) + b"FUZZ".ljust(16) + bytes(32)
    return pdu(1, fixed + _item(0x10, APPLICATION) + proposed + user)


def pdu(kind: int, body: bytes, declared: int | None = None) -> bytes:
    return struct.pack(">BBL", kind, 0, len(body) if declared is None else declared) + body


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body) & 0xFFFF) + body


def value(context: int, flags: int, data: bytes, declared: int | None = None) -> bytes:
    """A P-DATA-TF with one value."""
    length = len(data) + 2 if declared is None else declared
    return pdu(4, struct.pack(">LBB", length, context, flags) + data)


def command(field: int, size: int = 0) -> bytes:
    """A command set of one element, or of one whose length is not its own."""
    body = struct.pack("<2HLH", 0, 0x0100, 2, field)
    return struct.pack("<2HLL", 0, 0, 4, size or len(body)) + body


def noise(chance: Chance) -> list[bytes]:
    return [chance.randbytes(chance.choice((1, 5, 6, 7, 80, 4000)))]


def other_protocols(chance: Chance) -> list[bytes]:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(64)
    return [chance.choice((b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", hello, b"\r\n\r\n", b"\x00" * 64))]


def half(chance: Chance) -> list[bytes]:
    whole = request()
    return [whole[: chance.randrange(1, len(whole))]]


def damaged(chance: Chance) -> list[bytes]:
    whole = bytearray(request(contexts=chance.choice((1, 3, 128))))
    for _ in range(chance.randrange(1, 6)):
        whole[chance.randrange(6, len(whole))] = chance.randrange(256)
    return [bytes(whole)]


def lying(chance: Chance) -> list[bytes]:
    """A length that is not there, of any kind of PDU."""
    return [pdu(chance.randrange(9), chance.randbytes(20), chance.choice(LENGTHS))]


def early(chance: Chance) -> list[bytes]:
    """Data, releases and aborts before anybody was let in."""
    return [
        pdu(chance.choice((2, 3, 4, 5, 6, 7, 8, 255)), chance.randbytes(chance.choice((4, 10))))
    ]


def garbage_inside(chance: Chance) -> list[bytes]:
    """Let in, then values that are no messages."""
    flags, context = chance.choice((0, 1, 2, 3, 255)), chance.choice((0, 1, 3, 255))
    data = chance.choice((b"", chance.randbytes(40), command(1), command(0x30), command(0xFFFF),
                          command(1, 2**32 - 1), bytes(300)))  # fmt: skip
    lies = chance.choice((None, None, *LENGTHS))
    return [request(), *[value(context, flags, data, lies)] * chance.choice((1, 3))]


def stored_nothing(chance: Chance) -> list[bytes]:
    """A C-STORE whose data set is noise, or never comes."""
    store = struct.pack("<2HL", 0, 0x0002, 26) + CT_STORAGE + b"\x00"
    store += struct.pack("<2HLH", 0, 0x0100, 2, 1) + struct.pack("<2HLH", 0, 0x0110, 2, 7)
    store += struct.pack("<2HLH", 0, 0x0700, 2, 0) + struct.pack("<2HLH", 0, 0x0800, 2, 1)
    store += struct.pack("<2HL", 0, 0x1000, 8) + b"1.2.3.4\x00"
    whole = struct.pack("<2HLL", 0, 0, 4, len(store)) + store
    parts = [value(1, 2, chance.randbytes(3000)) for _ in range(chance.randrange(3))]
    return [request(), value(1, 3, whole), *parts]


ATTACKS: Mapping[str, Callable[[Chance], list[bytes]]] = {
    "noise": noise, "other protocols": other_protocols, "half a request": half,
    "damaged request": damaged, "lying length": lying, "too early": early,
    "garbage inside": garbage_inside, "stored nothing": stored_nothing,
}  # fmt: skip


def attack(connection: socket.socket, pieces: list[bytes], chance: Chance) -> bytes:
    """Send the pieces, each after the answer to the one before; then close, in order or not."""
    answered = b""
    connection.settimeout(ANSWER_S)
    try:
        for piece in pieces:
            connection.sendall(piece)
            answered += _heard(connection) if len(pieces) > 1 else b""
        if chance.random() < 0.5:
            linger = struct.pack("ii", 1, 0)  # a reset instead of a farewell
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    except OSError:
        pass  # the listener has hung up, which is right
    finally:
        connection.close()
    return answered


def _heard(connection: socket.socket) -> bytes:
    try:
        return connection.recv(4096)
    except TimeoutError:
        return b""
