"""What a quiz is: who is in it, its question, its answers, its log. No I/O, no gRPC, no clock.

A member sends signals, which are commands:

    ask QUESTION|CHOICE|CHOICE...   a new question; delivered as it is, as state `question`
    answer N                        counts for its user, the last one wins; delivered as state `tally`
    end                             the quiz is over: everybody leaves

and chat, which are remarks for everybody, thinned where there are too many.
"""

import secrets
from collections import OrderedDict, deque

import frames as f
from frames import ACCEPTED, CHAT, DUPLICATE, OUT_OF_ORDER, REFUSED, SHED, SIGNAL, Position

# Group handles are shared by all backends of a gateway. Edgeway's own count up from 1, so those of
# other backends begin at 2^61. Two quizzes must never share one, not even those of two processes or
# of two runs: 41 bits are drawn at each start, 20 count.
FIRST_GROUP = 1 << 61 | secrets.randbits(41) << 20
MAX_QUIZZES = 1000
MAX_MEMBERS = 10_000
MAX_CHOICES = 10

# What is kept for who comes late or falls behind, by class: counted, and bounded in bytes.
LOG_MESSAGES, LOG_BYTES = 1000, 1 << 20
# Devices whose last message id is remembered, so that a repeat is known for one.
MAX_SENDERS = 20_000
# Remarks of a quiz in a second; more are flicker.
REMARKS_PER_SECOND = 5


class Refused(Exception):
    """A message or request that may not be: the error code, and why."""

    def __init__(self, code: int, detail: str):
        super().__init__(detail)
        self.code = code


class Log:
    """The deliveries of one class: numbered without holes, the latest of them kept."""

    def __init__(self, epoch: int):
        self.head = Position(epoch, 0)
        self.kept: deque[bytes] = deque()
        self.bytes = 0

    def next(self) -> Position:
        return Position(self.head.epoch, self.head.counter + 1)

    def append(self, frame: bytes) -> None:
        self.head = self.next()
        self.kept.append(frame)
        self.bytes += len(frame)
        while len(self.kept) > LOG_MESSAGES or self.bytes > LOG_BYTES:
            self.bytes -= len(self.kept.popleft())

    def page(self, after: Position, limit: int) -> tuple[int, Position, bytes]:
        """Flags, where the next page starts, and whole frames: what follows `after`."""
        first = self.head.counter - len(self.kept) + 1
        # Positions of another epoch are of an earlier run, of which nothing is left.
        wanted = after.counter + 1 if after.epoch == self.head.epoch else 1
        begin = max(wanted, first)
        lost = begin > wanted or after.epoch not in (0, self.head.epoch)
        flags, messages, counter = f.TRUNCATED if lost else 0, b"", begin - 1
        limit = min(limit or f.PAGE_MESSAGES, f.PAGE_MESSAGES)
        for at in range(begin, min(self.head.counter + 1, begin + limit)):
            frame = self.kept[at - first]
            if messages and len(messages) + len(frame) > f.PAGE_BYTES:
                break
            messages += frame
            counter = at
        if counter < self.head.counter:
            return flags | f.MORE, Position(self.head.epoch, counter), messages
        return flags, max(after, self.head), messages


class Quiz:
    """One quiz. `publish(quiz, class, first, frame)` is called for each delivery, once it is in the log."""

    def __init__(self, name: str, group: int, epoch: int, publish):
        self.name, self.group, self.publish = name, group, publish
        self.members: set = set()
        self.logs = {SIGNAL: Log(epoch), CHAT: Log(epoch)}
        # The last id of each sender: (user, device, class).
        self.last: OrderedDict[tuple, int] = OrderedDict()
        # The latest delivery of each key, for who comes late.
        self.state: dict[str, bytes] = {}
        self.choices: list[str] = []
        self.answers: dict[str, int] = {}
        self.remarks, self.second, self.shed = 0, 0, 0

    def last_id(self, session, klass: int) -> int:
        return self.last.get((session.user, session.device, klass), 0)

    def classes(self, session) -> list[tuple[Position, int]]:
        """For Joined: a class that there is not is 0-0."""
        heads = self.logs[SIGNAL].head, f.NOWHERE, self.logs[CHAT].head
        return [(head, self.last_id(session, klass)) for klass, head in enumerate(heads)]

    def send(self, session, klass: int, message: int, key: str, payload: bytes, now_ms: int) -> bytes:
        """A message of a member; the ack. Raises Refused, and the id is not used up then."""
        last = self.last_id(session, klass)
        if message <= last:
            return f.ack(self.group, klass, message, DUPLICATE)
        # A signal that is missing will come again; chat may have been shed on its way.
        if klass == SIGNAL and message != last + 1:
            return f.ack(self.group, klass, message, OUT_OF_ORDER, expected=last + 1)
        if len(payload) > f.PAYLOAD_BYTES:
            raise Refused(f.TOO_LARGE, f"{len(payload)} bytes; {f.PAYLOAD_BYTES} are allowed")
        if klass == SIGNAL:
            key, payload = self.command(session.user, payload)
        elif klass == CHAT:
            key = ""
        else:
            raise Refused(f.FORBIDDEN, "a quiz has no strokes")
        self.last[(session.user, session.device, klass)] = message
        self.last.move_to_end((session.user, session.device, klass))
        if len(self.last) > MAX_SENDERS:
            self.last.popitem(last=False)
        if klass == CHAT and not self.may_remark(now_ms):
            self.shed += 1
            return f.ack(self.group, klass, message, SHED)
        log = self.logs[klass]
        seq = log.next()
        shed = self.shed if klass == CHAT else 0
        delivery = f.deliver(self.group, klass, seq, now_ms, shed, session.user, key, payload)
        # First the log, then the members: whoever falls behind finds it there.
        log.append(delivery)
        if key:
            self.state[key] = delivery
        self.publish(self, klass, seq, delivery)
        return f.ack(self.group, klass, message, ACCEPTED, seq)

    def command(self, user: str, payload: bytes) -> tuple[str, bytes]:
        """Does what a signal says; what is delivered for it: its key and payload."""
        word, _, rest = payload.decode(errors="replace").partition(" ")
        if word == "ask":
            question, *choices = (part.strip() for part in rest.split("|"))
            if not question or not 2 <= len(choices) <= MAX_CHOICES:
                raise Refused(f.BAD_REQUEST, f"ask QUESTION|CHOICE|CHOICE, 2 to {MAX_CHOICES} choices")
            if len(rest.encode()) > 4096:
                raise Refused(f.TOO_LARGE, "a question may have 4096 bytes")
            self.choices, self.answers = choices, {}
            self.state.pop("tally", None)
            return "question", rest.encode()
        if word == "answer":
            if not rest.isdecimal() or not 1 <= int(rest) <= len(self.choices):
                raise Refused(f.BAD_REQUEST, f"answer 1 to {len(self.choices)}" if self.choices else "there is no question")
            self.answers[user] = int(rest)
            counts = [0] * len(self.choices)
            for choice in self.answers.values():
                counts[choice - 1] += 1
            return "tally", " ".join(map(str, counts)).encode()
        raise Refused(f.BAD_REQUEST, "commands are: ask, answer, end")

    def may_remark(self, now_ms: int) -> bool:
        if now_ms // 1000 != self.second:
            self.second, self.remarks = now_ms // 1000, 0
        self.remarks += 1
        return self.remarks <= REMARKS_PER_SECOND


class Quizzes:
    """All quizzes, by Session type and name."""

    def __init__(self, epoch: int, publish):
        self.epoch, self.publish = epoch, publish
        self.by_name: dict[tuple[str, str], Quiz] = {}
        self.count = 0

    def join(self, kind: str, name: str) -> Quiz:
        quiz = self.by_name.get((kind, name))
        if quiz:
            if len(quiz.members) >= MAX_MEMBERS:
                raise Refused(f.UNAVAILABLE, "the quiz is full")
            return quiz
        if len(self.by_name) >= MAX_QUIZZES and not self.drop_empty():
            raise Refused(f.UNAVAILABLE, "there are too many quizzes")
        self.count += 1
        quiz = Quiz(name, FIRST_GROUP + self.count, self.epoch, self.publish)
        self.by_name[kind, name] = quiz
        return quiz

    def drop_empty(self) -> bool:
        """Forgets the oldest quiz in which nobody is."""
        for key, quiz in self.by_name.items():
            if not quiz.members:
                del self.by_name[key]
                return True
        return False

    def end(self, kind: str, quiz: Quiz) -> None:
        self.by_name.pop((kind, quiz.name), None)
