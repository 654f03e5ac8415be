"""The Sessions that clients open, and what their frames ask for. No I/O, no gRPC.

`link.send(stream_of(class), item)` queues an item for the gateway; link_pb2 is generated from
proto/link.proto.
"""

import time

import frames as f
import link_pb2 as pb
from frames import BINARY, CHAT, REFUSED, SIGNAL, Body, Broken, Position
from quizzes import Quiz, Quizzes, Refused

# What is held for a Session until the gateway confirms that it is no replay.
HELD_BYTES = 128 * 1024


def stream_of(klass: int) -> int:
    """Signals travel on CONTROL, the rest on BULK, both ways."""
    return pb.CONTROL if klass == SIGNAL else pb.BULK


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Session:
    """One Session of a client, on the link of its gateway."""

    def __init__(self, link, open: pb.Open):
        self.link, self.id, self.kind = link, open.session, open.kind
        self.user, self.device, self.generation = open.user, open.device, open.generation
        self.early = open.early
        self.held: list[tuple[int, bytes]] = []
        self.held_bytes = 0
        self.quizzes: dict[int, Quiz] = {}

    def data(self, klass: int, frames: bytes) -> None:
        data = pb.Data(session=self.id, frames=frames)
        setattr(data, "class", klass)
        self.link.send(stream_of(klass), pb.DownItem(data=data))


class Sessions:
    """Everything that clients ask of the service."""

    def __init__(self, epoch: int, banned: set[str], echoed: set[str], log):
        self.quizzes = Quizzes(epoch, publish)
        self.banned, self.echoed, self.log = banned, echoed, log
        # The latest Session of each device.
        self.current: dict[tuple[str, str, str], Session] = {}

    # What the gateway says.

    def open(self, link, open: pb.Open) -> None:
        session = link.sessions[open.session] = Session(link, open)
        if session.user in self.banned:
            return self.close(session, f.KICKED, "you may not take part in quizzes")
        if not session.early:
            if not self.take_over(session):
                return
        link.send(pb.CONTROL, pb.DownItem(opened=pb.Opened(session=session.id)))
        self.log(f"{session.user} opened a Session of type {session.kind} from {open.remote}")

    def confirm(self, link, number: int) -> None:
        """It is no replay: now it may end an older one, and what it said before counts."""
        session = link.sessions.get(number)
        if session is None or not session.early:
            return
        session.early = False
        if self.take_over(session):
            held, session.held = session.held, []
            for klass, frames in held:
                self.frames(session, klass, frames)

    def data(self, link, data: pb.Data) -> None:
        session = link.sessions.get(data.session)
        # One that was closed here: the gateway did not know yet.
        if session is None:
            return
        klass = getattr(data, "class")
        if not session.early:
            return self.frames(session, klass, data.frames)
        # The simplest thing that is right: until Confirm nothing is done at all.
        session.held_bytes += len(data.frames)
        if session.held_bytes > HELD_BYTES:
            return self.close(session, f.BACKEND_UNAVAILABLE, "too much before the handshake was complete")
        session.held.append((klass, data.frames))

    def closed(self, link, number: int) -> None:
        """The client ended it, or is gone (`lost`). A quiz shows nobody who is there, so that a lost
        Session has no place to be kept: its user's answers count whether it comes back or not."""
        session = link.sessions.pop(number, None)
        if session is not None:
            self.forget(session)

    # What becomes of a Session.

    def take_over(self, session: Session) -> bool:
        """It is its device's from now on; an older one ends. False: it is itself the older one."""
        key = session.kind, session.user, session.device
        other = self.current.get(key)
        if other is not None and other.generation > session.generation:
            self.close(session, f.REPLACED, "a newer connection of the same user and device took over")
            return False
        if other is not None:
            self.close(other, f.REPLACED, "a newer connection of the same user and device took over")
        self.current[key] = session
        return True

    def close(self, session: Session, code: int, reason: str, retry_after_ms: int = 0) -> None:
        """Ends a Session and tells its client why; the gateway does not answer."""
        close = pb.Close(session=session.id, code=code, reason=reason, retry_after_ms=retry_after_ms)
        session.link.send(pb.CONTROL, pb.DownItem(close=close))
        session.link.sessions.pop(session.id, None)
        self.forget(session)
        self.log(f"closed the Session of {session.user}: {reason}")

    def forget(self, session: Session) -> None:
        for quiz in session.quizzes.values():
            quiz.members.discard(session)
        session.quizzes = {}
        key = session.kind, session.user, session.device
        if self.current.get(key) is session:
            del self.current[key]

    # What its frames ask for.

    def frames(self, session: Session, klass: int, frames: bytes) -> None:
        if session.kind in self.echoed:
            # Of any kind, not even cut apart. Little is under way: clients send within their credit.
            return session.data(klass, frames)
        try:
            for kind, body, whole in f.split(frames):
                self.frame(session, klass, kind, Body(body), whole)
                # It may have been closed by the last one.
                if session.link.sessions.get(session.id) is not session:
                    return
        except Broken as broken:
            self.close(session, broken.code, str(broken))

    def frame(self, session: Session, klass: int, kind: int, body: Body, whole: bytes) -> None:
        if kind == f.JOIN:
            self.join(session, body)
        elif kind == f.LEAVE:
            self.leave(session, body.varint(), body.varint(), 0, "")
        elif kind == f.SEND:
            self.send(session, klass, body)
        elif kind == f.HISTORY:
            self.history(session, body)
        elif kind == f.MEMBERS:
            session.data(SIGNAL, f.error(body.varint(), f.FORBIDDEN, "a quiz keeps no list of its members"))
        elif kind == f.FIRST_OWN:
            # Opaque to everybody between: it goes back as it came, on the lane on which it came.
            session.data(klass, whole)
        elif kind < f.FIRST_SKIPPED:
            raise Broken(f.UNKNOWN_FRAME, f"a frame of kind 0x{kind:02x}, which a quiz does not know")

    def join(self, session: Session, body: Body) -> None:
        request, flags, name, have = body.varint(), body.varint(), body.name(), body.positions()
        try:
            if not request or not name:
                raise Refused(f.BAD_REQUEST, "a join has a number and a name")
            if flags & f.SEND_ONLY:
                raise Refused(f.FORBIDDEN, "whoever takes part in a quiz also listens")
            quiz = self.quizzes.join(session.kind, name)
        except Refused as refused:
            return session.data(SIGNAL, f.error(request, refused.code, str(refused)))
        quiz.members.add(session)
        session.quizzes[quiz.group] = quiz
        state = b"".join(quiz.state.values())
        # On CONTROL: the answer, then the subscription; so Joined is before the first delivery.
        session.data(
            SIGNAL, f.joined(request, name, quiz.group, len(quiz.members), quiz.classes(session), state)
        )
        for klass, log in quiz.logs.items():
            # On the stream of the deliveries: what was published before is not for this Session, all
            # that follows is. Where the client has less than the head, the gateway tells it to page.
            subscribe = pb.Subscribe(session=session.id, group=quiz.group, head=wire(log.head))
            setattr(subscribe, "class", klass)
            if klass in have:
                subscribe.have.CopyFrom(wire(have[klass]))
            session.link.send(stream_of(klass), pb.DownItem(subscribe=subscribe))

    def leave(self, session: Session, request: int, group: int, code: int, reason: str) -> None:
        quiz = session.quizzes.pop(group, None)
        if quiz is None:
            return session.data(SIGNAL, f.error(request, f.NOT_JOINED, "not in that quiz"))
        quiz.members.discard(session)
        for stream in (pb.CONTROL, pb.BULK):
            unsubscribe = pb.Unsubscribe(session=session.id, group=group)
            session.link.send(stream, pb.DownItem(unsubscribe=unsubscribe))
        session.data(SIGNAL, f.left(request, group, code, reason))

    def send(self, session: Session, lane: int, body: Body) -> None:
        group, klass, message = body.varint(), body.klass(), body.varint()
        _expires_ms, key, payload = body.varint(), body.name(), body.rest()
        if klass != lane:
            raise Broken(f.PROTOCOL_ERROR, "a message on the lane of another class")
        quiz = session.quizzes.get(group)
        try:
            if quiz is None:
                raise Refused(f.NOT_JOINED, "not in that quiz")
            if payload == b"end" and klass == SIGNAL and message == quiz.last_id(session, SIGNAL) + 1:
                return self.end(session, quiz, message)
            answer = quiz.send(session, klass, message, key, payload, now_ms())
        except Refused as refused:
            why = f.error(0, refused.code, str(refused))
            return session.data(SIGNAL, why + f.ack(group, klass, message, REFUSED))
        # Acks of chat go with chat: they must not stand in front of signals.
        session.data(CHAT if klass == CHAT else SIGNAL, answer)

    def end(self, session: Session, quiz: Quiz, message: int) -> None:
        session.data(SIGNAL, f.ack(quiz.group, SIGNAL, message, f.ACCEPTED))
        for member in list(quiz.members):
            self.leave(member, 0, quiz.group, f.KICKED, f"{session.user} has ended the quiz")
        self.quizzes.end(session.kind, quiz)

    def history(self, session: Session, body: Body) -> None:
        request, group, klass = body.varint(), body.varint(), body.klass()
        after, limit = body.position(), body.varint()
        quiz = session.quizzes.get(group)
        if quiz is None:
            return session.data(SIGNAL, f.error(request, f.NOT_JOINED, "not in that quiz"))
        if klass == BINARY:
            return session.data(SIGNAL, f.error(request, f.BAD_REQUEST, "a quiz has no strokes"))
        log = quiz.logs[klass]
        flags, upto, messages = log.page(after, limit)
        head = max(log.head, upto)
        # Always on the signal lane, whatever class it speaks of.
        session.data(SIGNAL, f.page(request, group, klass, flags, upto, head, messages))


def wire(p: Position) -> pb.Position:
    return pb.Position(epoch=p.epoch, counter=p.counter)


def publish(quiz: Quiz, klass: int, first: Position, frame: bytes) -> None:
    """One item for each gateway that has members, however many they are: it does the rest."""
    publish = pb.Publish(group=quiz.group, first=wire(first), count=1, frames=frame)
    setattr(publish, "class", klass)
    for link in {member.link for member in quiz.members}:
        link.send(stream_of(klass), pb.DownItem(publish=publish))
