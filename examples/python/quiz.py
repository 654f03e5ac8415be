"""An Edgeway backend in Python: quizzes. See docs/BACKENDS.md, which walks through this code."""

import argparse
import asyncio
import signal
import sys
import time
from pathlib import Path

HELP = """\
A backend for Edgeway, in Python: quizzes, in which members ask, answer and chat. It serves a Session
type that no code of Edgeway knows: name it in the config and point it here.

1. Start this backend (the first time it installs its packages):

     examples/python/run

2. In another terminal, start Edgeway with a route to it:

     printf '[gateway.routes]\\nquiz = "quiz"\\n[backends]\\nquiz = ["127.0.0.1:7500"]\\n' > quiz.toml
     cargo run --release -p edgeway-cli -- up --config quiz.toml

3. In two more, take part:

     cargo run -p edgeway-example-quiz -- play --user ada maths
     cargo run -p edgeway-example-quiz -- play --user bob maths
"""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="examples/python/run",
        description=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="It prints `ready grpc=HOST:PORT` once gateways can dial. Ctrl-C tells clients and stops.",
    )
    parser.add_argument("--setup", action="store_true", help="install and generate what is needed, and stop")
    parser.add_argument("--listen", default="127.0.0.1:7500", metavar="HOST:PORT",
                        help="where gateways dial; port 0 takes a free one [default: %(default)s]")
    tls = parser.add_argument_group("TLS, for gateways with [links] (without: in the clear, on this machine only)")
    tls.add_argument("--ca", metavar="FILE", help="the CA of the gateways' certificates, PEM: links.ca")
    tls.add_argument("--cert", metavar="FILE", help="this backend's certificate of the same CA (edgeway certs link quiz)")
    tls.add_argument("--key", metavar="FILE", help="its key")
    parser.add_argument("--ban", action="append", default=[], metavar="USER",
                        help="closes the Sessions of this user with `kicked`; may be given more than once")
    parser.add_argument("--echo", action="append", default=[], metavar="TYPE",
                        help="gives Sessions of this type back every frame, unread: passthrough at its "
                             "simplest; may be given more than once")
    args = parser.parse_args()
    host, _, port = args.listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        parser.error(f"--listen: `{args.listen}` is no address; expected HOST:PORT such as 127.0.0.1:7500")
    if len({args.ca is None, args.cert is None, args.key is None}) > 1:
        parser.error("--ca, --cert and --key go together")
    return args


def listen(server, args: argparse.Namespace) -> int:
    """The port that it listens on; 0 where that is impossible."""
    import grpc

    try:
        if args.ca is None:
            return server.add_insecure_port(args.listen)
        ca, cert, key = (Path(path).read_bytes() for path in (args.ca, args.cert, args.key))
        # Certificates of both sides: a gateway without one of this CA is refused.
        credentials = grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)
        return server.add_secure_port(args.listen, credentials)
    except RuntimeError:
        return 0


async def serve(args: argparse.Namespace) -> int:
    import grpc
    import link_pb2_grpc as rpc
    from links import OPTIONS, Backend
    from sessions import Sessions

    # Positions of this run are above those of the run before, which are lost with its memory. A service
    # that keeps its log keeps its epoch with it, and raises it when another process takes over.
    epoch = time.time_ns() // 1_000_000
    log = lambda line: print(line, flush=True)  # noqa: E731
    backend = Backend(Sessions(epoch, set(args.ban), set(args.echo), log))
    server = grpc.aio.server(options=OPTIONS)
    rpc.add_BackendServicer_to_server(backend, server)
    try:
        port = listen(server, args)
    except OSError as e:
        print(f"error: cannot read a certificate: {e}", file=sys.stderr)
        return 1
    if port == 0:
        print(f"error: cannot listen on {args.listen}: is a quiz running already, or are the certificates not good? "
              "Stop it, choose another address with --listen, or see the line above", file=sys.stderr)
        return 1
    await server.start()
    print(f"ready grpc={args.listen.rpartition(':')[0]}:{port}", flush=True)
    stop = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    await stop.wait()
    await backend.goodbye()
    await server.stop(grace=2)
    return 0


def main() -> int:
    args = arguments()
    generated = Path(__file__).parent / "generated"
    sys.path.insert(0, str(generated))
    try:
        import link_pb2  # noqa: F401
        import grpc  # noqa: F401
    except ImportError as e:
        print(f"error: {e}; start this with examples/python/run, which installs what is needed", file=sys.stderr)
        return 1
    return asyncio.run(serve(args))


if __name__ == "__main__":
    sys.exit(main())
