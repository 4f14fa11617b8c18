"""Train, judge and report: `python -m visxp_jax.main --config=... --workdir=...`."""

import json
import os
import sys
import time
from pathlib import Path
from runpy import run_path
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from visxp_jax.atomic import write_whole
from visxp_jax.command_line import command
from visxp_jax.config import TrainConfig, from_dict, unknown_key
from visxp_jax.errors import VisxpError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "File in configs/; --config.section.key=value changes a value."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where everything of the run goes.")
_TENSORBOARD = flags.DEFINE_bool("tensorboard", True, "Also write TensorBoard events.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join the other hosts of a multi-host job first."
)
flags.mark_flags_as_required(["config", "workdir"])


def prepared_dir(config: TrainConfig, workdir: Path) -> Path:
    """Folder of prepared data; prepares `data.videos` first where `data.dir` is ''."""
    if config.data.dir:
        return Path(config.data.dir)
    import jax
    import numpy as np
    from jax.experimental.multihost_utils import broadcast_one_to_all

    failed = None
    if jax.process_index() == 0:
        try:
            prepare_data(config, workdir)
        except VisxpError as error:
            failed = error
    if jax.process_count() > 1:  # nobody waits for a host that has given up
        ok = broadcast_one_to_all(np.array(failed is None))
        if not ok and failed is None:
            failed = VisxpError("host 0 could not prepare the data; see what it says.")
    if failed is not None:
        raise failed
    return workdir / "data"


def prepare_data(config: TrainConfig, workdir: Path) -> None:
    """Prepare `data.videos` into WORKDIR/data; the demo videos are made first."""
    from data_prep.demo_videos import write_demo_videos
    from data_prep.prepare import prepare

    videos = Path(config.data.videos)
    if config.data.videos == "demo":
        videos = workdir / "videos"
        write_demo_videos(videos)
    prepare(
        videos,
        workdir / "data",
        spectrogram=config.data.spectrogram,
        size_px=config.data.size_px,
        labels=Path(config.data.labels) if config.data.labels else None,
        file_format=config.data.reader,
        leave_out=workdir,
    )


def run(config: TrainConfig, workdir: Path, *, tensorboard: bool) -> dict[str, Any]:
    """The whole job, from wherever an earlier one in this workdir got to.

    Returns:
        The figures, as written to WORKDIR/results.json.
    """
    import jax

    # Late: a mistake in the configuration need not wait for these.
    from visxp_jax.figures import final_figures
    from visxp_jax.report.collect import write_report
    from visxp_jax.run import train
    from visxp_jax.session import check_start, open_session, provenance
    from visxp_jax.weights import save_weights, taught_last

    begun = time.monotonic()
    check_start(config, workdir)
    data = prepared_dir(config, workdir)
    with open_session(
        config, workdir, data, begun=begun, tensorboard=tensorboard
    ) as session:
        state, scores = train(session)
        session.stop.release()  # training is saved; figures and page are made anew
        about = provenance(config, session.dataset) | {
            "step": int(state.step),
            "label_names": session.dataset.label_names,
        }
        figures, features = final_figures(session, state, scores)
        figures["seconds"] = session.seconds()
        results = {k: v if v is None else round(v, 6) for k, v in figures.items()}
        if jax.process_index() == 0:
            # On the host: from here on no device of another one takes part.
            params = jax.device_get(state.params)
            model_state = jax.device_get(state.model_state)
            about["figures"] = results
            what = *taught_last(config, params), model_state, about
            about["sha256"] = save_weights(
                workdir, config.encoder, *what, config=config
            )
            write_whole(workdir / "results.json", json.dumps(results, indent=2))
            write_report(session, params, results, features, about)
    return results


def print_table(results: dict[str, Any], workdir: Path) -> None:
    """The figures, and where to look next."""
    width = max(map(len, results))
    for name, value in results.items():
        print(f"{name:{width}}  {'-' if value is None else f'{value:.3f}'}")
    print(f"\nreport: {workdir / 'report.html'}")


def missing_key(argv: list[str]) -> str | None:
    """What to say of the first --config.KEY that the configuration does not have."""
    given = {}  # flag -> value, whether written --flag=value or --flag value
    for arg, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = arg.lstrip("-").partition("=")
        given[name] = value if equals else following
    path, colon, argument = given["config"].partition(":")
    get_config = run_path(path).get("get_config")
    if get_config is None:
        return f"{path} must define get_config(), got none; see configs/."
    values = get_config(argument) if colon else get_config()
    for name in given:
        node = values
        parts = name.split(".")[1:] if name.startswith("config.") else []
        for depth, part in enumerate(parts, start=1):
            if part not in node:
                return unknown_key(".".join(parts[:depth]), list(node))
            node = node[part]
    return None


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the command line; a mistake in it is one line and exit code 2."""
    try:
        rest = flags.FLAGS(argv)
        _ = _CONFIG.value.keys()  # a file that could not be loaded says so only now
        return rest
    except flags.Error as error:
        lines = str(error).strip().splitlines()
        # A file that raises comes with its whole traceback.
        last = lines[-1].removeprefix("ValueError: ")
        text = last if "Traceback" in str(error) else " ".join(lines)
        print(f"error: {text}", file=sys.stderr)
    except (AttributeError, KeyError) as error:  # ml_collections: no such key
        print(f"error: {missing_key(argv) or error}", file=sys.stderr)
    except (TypeError, ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(2)


@command("stopped; the same command goes on from here.")
def main(argv: list[str]) -> None:
    """Entry point.

    SIGTERM and SIGINT: 0 once a stage saved its state, 130 anywhere else.
    """
    # Orbax, TFDS and clu report every file they touch, TensorFlow its own start.
    logging.set_verbosity(logging.ERROR)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        if not _WORKDIR.value:
            raise VisxpError("--workdir must name a folder, got ''.")
        if len(argv) > 1:
            raise VisxpError(f"unknown argument {argv[1]!r}; values are --config.KEY=.")
        config = from_dict(_CONFIG.value)
        job(config, Path(str(_WORKDIR.value)).absolute())
    except VisxpError:
        raise
    except Exception as error:  # tensorstore, orbax and clu wrap it in their own
        if "No space left" not in f"{error}{error.__cause__}{error.__context__}":
            raise
        raise VisxpError(
            f"{_WORKDIR.value} must have room, but no space is left on the device; "
            "free some, then run the same command again."
        ) from error


def job(config: TrainConfig, workdir: Path) -> None:
    """Join the other hosts, lock the workdir, run, print."""
    import jax

    from visxp_jax.train.lock import LOCK, locked
    from visxp_jax.train.loop import Preempted

    if _DISTRIBUTED.value:
        jax.distributed.initialize()
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(workdir / "compiled"))
    jax.config.update("jax_compilation_cache_dir", cache)
    host = jax.process_index()
    with locked(workdir, name=f"{LOCK}.{host}" if host else LOCK):
        try:
            results = run(config, workdir, tensorboard=_TENSORBOARD.value)
        except Preempted as stopped:
            print(f"{stopped}; the same command goes on from there.")
            return
    if not host:
        print_table(results, workdir)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
