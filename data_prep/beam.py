"""Prepare a folder of videos on Apache Beam: the same data as `data_prep.prepare`.

    python -m data_prep.beam VIDEOS --out DIR -- --runner=DirectRunner

Options after `--` are Beam's own. It needs an environment of its own, see
requirements/beam.txt, and pays off only on several machines.

Workers write the clips of each video to DIR/parts, then Beam shuffles them into shards;
index, manifest and prepared.json are written here. So VIDEOS and DIR must lie in a file
system that this machine and all workers have mounted at the same path; gs:// will not
do. Workers need the packages of requirements/beam.txt and this source: on Dataflow, a
container, --sdk_container_image.

So far this has run on one machine only: on Beam's FnApiRunner, and on DirectRunner
where it could not download Prism, its other engine, and so was the same. Dataflow,
Flink and Spark have not been tried.

The same command goes on after it was stopped; cancel what still runs elsewhere first.
Where a split fills more than one shard, from 128 MiB on, Beam divides it elsewhere:
records, their order and the index are the same, the files are not. Runners on one
machine hold all clips in memory.
"""

import io
import logging
import sys
from contextlib import redirect_stderr
from importlib.util import find_spec
from typing import Any

from data_prep.prepare import parser_of, run_command
from visxp_jax.command_line import command
from visxp_jax.errors import VisxpError


def pipeline_options(flags: list[str]) -> Any:
    """Beam's own options as its `PipelineOptions`.

    Raises:
        VisxpError: Beam does not know or like them, or is not installed.
    """
    if find_spec("apache_beam") is None:
        raise VisxpError(
            "Apache Beam must be installed, but is not; make an environment for it "
            "as requirements/beam.txt says."
        )
    from apache_beam import Pipeline  # pyright: ignore
    from apache_beam.options.pipeline_options import (  # pyright: ignore
        PipelineOptions,
    )

    logging.basicConfig()  # Beam would do it below, to where nobody looks
    usage = io.StringIO()
    try:
        with redirect_stderr(usage):  # 130 lines, then what is wrong
            options = PipelineOptions(flags)
            Pipeline(options=options)
            given = options.get_all_options(retain_unknown_options=True)
            unknown = sorted(given.keys() - options.get_all_options().keys())
    except SystemExit as error:
        if not error.code:  # --help
            raise
        reason = usage.getvalue().splitlines()[-1].partition("error: ")[2]
        raise VisxpError(f"Beam refuses its options: {reason}.") from error
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise VisxpError(f"Beam refuses its options: {reason}") from error
    if unknown:
        raise VisxpError(
            f"options after -- must be Beam's, got --{unknown[0]}; those of the data "
            "come before it."
        )
    return options


@command("stopped; the same command goes on from here.")
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    argv = sys.argv[1:] if argv is None else argv
    at = argv.index("--") if "--" in argv else len(argv)
    args = parser_of("python -m data_prep.beam", __doc__).parse_args(argv[:at])
    run_command(args, beam_options=pipeline_options(argv[at + 1 :]))


if __name__ == "__main__":
    sys.exit(main())
