"""Several hosts that share the work of one command, without talking to each other."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from visxp_jax.command_line import Parser
from visxp_jax.errors import VisxpError
from visxp_jax.train.lock import locked

LOCK = ".lock-{}-of-{}"


class Shard(NamedTuple):
    """The part of a host.

    Attributes:
        number: Of the host, from 0.
        of: Number of hosts.
    """

    number: int = 0
    of: int = 1

    def has(self, path: Path, named: Sequence[Path] = ()) -> bool:
        """Whether this host is to do a file or folder; each is done by one of them.

        Args:
            path: Absolute.
            named: Folders that were searched: below them the path counts, which is the
                same wherever a host has mounted them. Else the name alone.
        """
        within = path.name
        for folder in map(os.path.abspath, named):
            if path.is_relative_to(folder) and path != Path(folder):
                within = path.relative_to(folder)
                break
        digest = hashlib.sha256(os.fsencode(within)).hexdigest()
        return int(digest, 16) % self.of == self.number

    @contextmanager
    def locked(self, out: Path) -> Iterator[None]:
        """Alone in a folder, but for the other hosts' parts.

        Raises:
            VisxpError: another process does this part, or parts of another number of
                hosts, which would be the same files; or nothing can be written.
        """
        with locked(out, name=LOCK.format(self.number, self.of)):
            ours = {LOCK.format(i, self.of) for i in range(self.of)}
            for other in out.glob(LOCK.format("*", "*")):
                if other.name not in ours:
                    with locked(out, name=other.name):
                        pass
            yield


ALONE = Shard()


def add_shard(parser: Parser) -> None:
    """The option --shard, a text for `parse_shard`."""
    parser.add_argument(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="only what falls to the I-th of N hosts, counted from 0",
    )


def parse_shard(text: str) -> Shard:
    """'2/8' to the third of eight.

    Raises:
        VisxpError: it is not like that.
    """
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and int(number) < int(of)):
        raise VisxpError(f"--shard must be like 0/4, 1/4, 2/4 or 3/4, got {text!r}.")
    return Shard(int(number), int(of))
