"""A page to search an index by hand.

    visxp page INDEX --workdir=runs/mine      on this machine, until Ctrl-C
    visxp page INDEX --out=page.html          one file, of small collections

Press on a picture to play it, and go on to what looks or sounds like it. With the model
that made the index (--workdir), pictures, sounds and videos from elsewhere can be
searched by, and sounds found for a picture, pictures for a sound.

With --host others can reach the page too: by address, by that name, or by the machine's
own name. Requests under other names are refused, as a foreign site could send them.
"""

import errno
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from visxp_jax.command_line import Parser, command
from visxp_jax.errors import VisxpError


def serve(index: Path, workdir: Path | None, host: str, port: int) -> None:
    """Serve the page until the process is told to end.

    Raises:
        VisxpError: there is no index, it is of another model, or nothing to listen on.
    """
    from visxp_jax.page.live import LiveIndex
    from visxp_jax.page.server import Server, is_loopback

    if not 0 <= port < 2**16:
        raise VisxpError(f"--port must be from 0 to 65535, got {port}.")
    live = LiveIndex(index, workdir)
    with tempfile.TemporaryDirectory(
        prefix="visxp-page-",
        ignore_cleanup_errors=True,  # a worker that is just ended may still write
    ) as folder:
        try:
            server = Server(live, host, port, Path(folder))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise VisxpError(
                    f"--port must be free, but {port} is taken; give another."
                ) from error
            raise VisxpError(
                f"--host must be a name or address of this machine, got {host!r}: "
                f"{error.strerror}."
            ) from error
        with server:
            if not is_loopback(host):
                print(
                    "note: whoever reaches this machine can now see and play what is "
                    "in the index.",
                    file=sys.stderr,
                )
            named = f"[{host}]" if ":" in host else host
            address = f"http://{named}:{server.server_address[1]}/"
            print(f"{address}  (open it in a browser; Ctrl-C ends it)", flush=True)
            server.serve_forever()


@command("stopped; nothing was written.")
def main(argv: list[str] | None = None) -> None:
    """Entry point; to be stopped is how serving ends."""
    parser = Parser("visxp page", __doc__)
    add = parser.add_argument
    add("index", type=Path, metavar="INDEX", help="from `visxp search add`")
    add("--workdir", type=Path, help="of the model that made it; --out needs none")
    add("--host", default="127.0.0.1", help="to listen on (default: this machine only)")
    add("--port", type=int, default=8000, help="0 for any (default: 8000)")
    add("--out", type=Path, metavar="HTML", help="write one file instead")
    args = parser.parse_args(argv)
    if args.out is None:
        with suppress(KeyboardInterrupt):
            serve(args.index, args.workdir, args.host, args.port)
    else:
        from visxp_jax.page.offline import write_page

        write_page(args.index, args.out)


if __name__ == "__main__":
    sys.exit(main())
