"""The links with gateways: a gateway dials, two streams each, a bounded queue for each stream."""

import asyncio
import secrets
from collections import deque

import grpc
import link_pb2 as pb
import link_pb2_grpc as rpc
from frames import CHAT, GOING_AWAY
from sessions import Sessions

# What a gateway may leave unread on one stream. At the bound chat is shed, and where what is not chat
# does not fit the link ends: the gateway dials anew, and its clients open their Sessions again.
QUEUE_BYTES = 8 << 20
# One message of the stream holds about so much.
MESSAGE_BYTES = 64 * 1024
# How long a stream may take for its hello.
HELLO_SECONDS = 10

OPTIONS = [
    # A gateway that hangs is given up.
    ("grpc.keepalive_time_ms", 5000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.max_receive_message_length", 16 << 20),
    # By default a second process could listen on the same port, and each would get half of the streams.
    ("grpc.so_reuseport", 0),
]


class Queue:
    """What waits for the gateway on one stream, bounded in bytes."""

    def __init__(self):
        self.items: deque[pb.DownItem] = deque()
        self.bytes, self.ended = 0, False
        self.filled = asyncio.Event()

    def push(self, item: pb.DownItem) -> bool:
        """False where it does not fit, and nothing may be shed for it."""
        size = item.ByteSize()
        while self.bytes + size > QUEUE_BYTES:
            chat = next((old for old in self.items if is_chat(old)), None)
            if chat is None:
                return is_chat(item)
            self.items.remove(chat)
            self.bytes -= chat.ByteSize()
        self.items.append(item)
        self.bytes += size
        self.filled.set()
        return True

    def end(self) -> None:
        """What waits still goes out."""
        self.ended = True
        self.filled.set()

    async def take(self) -> pb.Down | None:
        """What waits goes together; nothing waits for more to come. None at the end."""
        while not self.items:
            if self.ended:
                return None
            self.filled.clear()
            await self.filled.wait()
        down, taken = pb.Down(), 0
        while self.items and taken < MESSAGE_BYTES:
            item = self.items.popleft()
            taken += item.ByteSize()
            down.items.append(item)
        self.bytes -= taken
        return down


def is_chat(item: pb.DownItem) -> bool:
    what = item.WhichOneof("item")
    return what in ("publish", "data") and getattr(getattr(item, what), "class") == CHAT


class Link:
    """One gateway. Lives from its first stream to the end of either."""

    def __init__(self, hello: pb.Hello):
        self.gateway, self.number, self.name = hello.gateway, hello.link, hello.name
        self.queues = {pb.CONTROL: Queue(), pb.BULK: Queue()}
        self.attached: set[int] = set()
        self.sessions: dict = {}
        self.cut = asyncio.Event()

    def send(self, stream: int, item: pb.DownItem) -> None:
        if not self.cut.is_set() and not self.queues[stream].push(item):
            print(f"the gateway {self.name} reads too slowly: its link ends", flush=True)
            self.cut.set()


class Backend(rpc.BackendServicer):
    """The service `edgeway.link.v1.Backend`."""

    def __init__(self, sessions: Sessions):
        self.service = sessions
        self.run = secrets.randbits(63)
        self.links: dict[int, Link] = {}

    async def Link(self, requests, context) -> None:
        try:
            first = await asyncio.wait_for(context.read(), HELLO_SECONDS)
        except asyncio.TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no hello")
        items = list(first.items) if first is not grpc.aio.EOF else []
        if not items or items[0].WhichOneof("item") != "hello":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first item must be hello")
        hello = items[0].hello
        link = self.attach(hello)
        if hello.stream in link.attached:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "this stream of the link is open already")
        link.attached.add(hello.stream)
        # At once: the gateway opens BULK when CONTROL has been answered.
        welcome = pb.DownItem(welcome=pb.Welcome(backend=self.run, name="quiz (python)"))
        await context.write(pb.Down(items=[welcome]))
        print(f"gateway {link.name}: {pb.Stream.Name(hello.stream)} of link {link.number}", flush=True)
        # Reading and writing are apart, so that neither can starve the other.
        ends = [
            asyncio.ensure_future(self.read(link, items[1:], context)),
            asyncio.ensure_future(self.write(link.queues[hello.stream], context)),
            asyncio.ensure_future(link.cut.wait()),
        ]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                end.result()
        finally:
            for end in ends:
                end.cancel()
            self.end(link)

    def attach(self, hello: pb.Hello) -> Link:
        """The link that a hello names. A gateway has one; a newer one ends the older."""
        link = self.links.get(hello.gateway)
        if link is None or link.number != hello.link:
            if link is not None:
                self.end(link)
            link = self.links[hello.gateway] = Link(hello)
        return link

    def end(self, link: Link) -> None:
        """Either stream has ended, so the link has: the gateway closes its Sessions by itself."""
        link.cut.set()
        for number in list(link.sessions):
            self.service.closed(link, number)
        if self.links.get(link.gateway) is link:
            del self.links[link.gateway]
            print(f"gateway {link.name}: link {link.number} has ended", flush=True)

    async def read(self, link: Link, rest: list, context) -> None:
        """Only as fast as it is worked off: HTTP/2 then slows the gateway, and that its clients."""
        while True:
            for item in rest:
                self.item(link, item)
            up = await context.read()
            if up is grpc.aio.EOF:
                return
            rest = up.items

    async def write(self, queue: Queue, context) -> None:
        while (down := await queue.take()) is not None:
            await context.write(down)

    def item(self, link: Link, item: pb.UpItem) -> None:
        what = item.WhichOneof("item")
        if what == "open":
            self.service.open(link, item.open)
        elif what == "data":
            self.service.data(link, item.data)
        elif what == "close":
            self.service.closed(link, item.close.session)
        elif what == "confirm":
            self.service.confirm(link, item.confirm.session)
        # None: an item of a later version, which this one could not answer.

    async def goodbye(self) -> None:
        """Tells every client when to come back; what is queued still goes out."""
        for link in list(self.links.values()):
            for session in list(link.sessions.values()):
                self.service.close(session, GOING_AWAY, "the quiz restarts", retry_after_ms=1000)
            # With CONTROL, which has said goodbye, the link ends.
            link.queues[pb.CONTROL].end()
