"""The frames of the client protocol that a quiz uses; proto/WIRE.md is the whole list.

A frame is `kind: u8, length: varint, body`. A body is its fields, one after the other; what follows
the last known field is of a later version and ignored.
"""

from typing import Iterator, NamedTuple

# Kinds.
ERROR, JOIN, JOINED, LEAVE, LEFT = 0x40, 0x41, 0x42, 0x43, 0x44
SEND, ACK, DELIVER, HISTORY, PAGE, MEMBERS = 0x45, 0x46, 0x47, 0x48, 0x49, 0x4A
# Kinds 0x80 to 0xbf mean what a backend wants them to; from 0xc0 on unknown ones are skipped.
FIRST_OWN, FIRST_SKIPPED = 0x80, 0xC0

# Classes.
SIGNAL, BINARY, CHAT = 0, 1, 2

# What became of a message.
ACCEPTED, DUPLICATE, SHED, OUT_OF_ORDER, REFUSED = range(5)

# Close codes (WIRE.md, section 14), and error codes (section 15).
GOING_AWAY, PROTOCOL_ERROR, UNKNOWN_FRAME, REPLACED, KICKED = 1, 2, 4, 13, 14
BACKEND_UNAVAILABLE = 33
BAD_REQUEST, NOT_JOINED, FORBIDDEN, UNAVAILABLE, TOO_LARGE = 1, 2, 5, 7, 8

NAME_BYTES, PAYLOAD_BYTES, REASON_BYTES = 128, 61440, 256
PAGE_MESSAGES, PAGE_BYTES = 200, 63488
MORE, TRUNCATED = 1, 2
SEND_ONLY = 1


class Broken(Exception):
    """A frame that breaks the protocol: its Session is closed with this code."""

    def __init__(self, code: int, reason: str):
        super().__init__(reason)
        self.code = code


class Position(NamedTuple):
    """A place in the order of a group and class. Compares as the protocol says: epoch first."""

    epoch: int
    counter: int


NOWHERE = Position(0, 0)


def varint(n: int) -> bytes:
    """The integers of QUIC: the two high bits of the first byte say how long it is."""
    for bits, size in ((6, 1), (14, 2), (30, 4), (62, 8)):
        if n < 1 << bits:
            return (n | (size.bit_length() - 1) << bits).to_bytes(size, "big")
    raise ValueError(f"{n} does not fit into 62 bits")


def text(s: str) -> bytes:
    raw = s.encode()
    return varint(len(raw)) + raw


def position(p: Position) -> bytes:
    return varint(p.epoch) + varint(p.counter)


def frame(kind: int, *fields: bytes) -> bytes:
    body = b"".join(fields)
    return bytes([kind]) + varint(len(body)) + body


class Body:
    """Reads the fields of a frame. Whatever is wrong is Broken: input is never trusted."""

    def __init__(self, raw: bytes):
        self.raw, self.at = raw, 0

    def take(self, n: int) -> bytes:
        if self.at + n > len(self.raw):
            raise Broken(PROTOCOL_ERROR, "a frame that ends within a field")
        self.at += n
        return self.raw[self.at - n : self.at]

    def varint(self) -> int:
        first = self.take(1)[0]
        size = 1 << (first >> 6)
        return int.from_bytes(bytes([first & 0x3F]) + self.take(size - 1), "big")

    def name(self) -> str:
        size = self.varint()
        if size > NAME_BYTES:
            raise Broken(PROTOCOL_ERROR, f"a name of {size} bytes; {NAME_BYTES} are allowed")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise Broken(PROTOCOL_ERROR, "a name that is not UTF-8") from None

    def klass(self) -> int:
        klass = self.take(1)[0]
        if klass > CHAT:
            raise Broken(PROTOCOL_ERROR, f"class {klass}; there are 0, 1 and 2")
        return klass

    def position(self) -> Position:
        return Position(self.varint(), self.varint())

    def positions(self) -> dict[int, Position]:
        found = {}
        for _ in range(self.varint()):
            klass = self.klass()
            if klass in found:
                raise Broken(PROTOCOL_ERROR, "two positions of one class")
            found[klass] = self.position()
        return found

    def rest(self) -> bytes:
        return self.take(len(self.raw) - self.at)


def split(frames: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Cuts whole frames apart: kind, body, and the frame as it came."""
    reader = Body(frames)
    while reader.at < len(frames):
        start = reader.at
        kind = reader.take(1)[0]
        body = reader.take(reader.varint())
        yield kind, body, frames[start : reader.at]


def error(request: int, code: int, detail: str) -> bytes:
    return frame(ERROR, varint(request), varint(code), varint(0), text(detail))


def ack(group: int, klass: int, message: int, status: int, seq=NOWHERE, expected=0) -> bytes:
    fields = varint(group), bytes([klass]), varint(message), bytes([status])
    return frame(ACK, *fields, position(seq), varint(expected))


def deliver(group: int, klass: int, seq: Position, now_ms: int, shed: int, sender: str, key: str, payload: bytes):
    fields = varint(group), bytes([klass]), position(seq), varint(now_ms), varint(0), varint(shed)
    return frame(DELIVER, *fields, text(sender), text(key), payload)


def joined(request: int, name: str, group: int, members: int, classes, state: bytes) -> bytes:
    """`classes`: for signal, binary and chat the head, and the last id accepted from this device."""
    items = b"".join(position(head) + varint(last) for head, last in classes)
    # There is no presence here, so its version never changes.
    fields = varint(request), text(name), varint(group), varint(members), varint(0)
    return frame(JOINED, *fields, varint(3), items, state)


def left(request: int, group: int, code: int, reason: str) -> bytes:
    return frame(LEFT, varint(request), varint(group), varint(code), text(reason))


def page(request: int, group: int, klass: int, flags: int, upto: Position, head: Position, messages: bytes):
    fields = varint(request), varint(group), bytes([klass]), varint(flags)
    return frame(PAGE, *fields, position(upto), position(head), messages)
