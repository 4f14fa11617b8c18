"""What stays the same during a run, and the checks before it starts."""

import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental.multihost_utils import broadcast_one_to_all

from visxp_jax import __version__
from visxp_jax.atomic import write_whole
from visxp_jax.config import TrainConfig, to_dict
from visxp_jax.data import open_reader
from visxp_jax.data.dataset import PreparedDataset, open_dataset
from visxp_jax.data.reader import Reader
from visxp_jax.errors import VisxpError
from visxp_jax.features import Encoder
from visxp_jax.media import printable
from visxp_jax.models.bind import Model
from visxp_jax.sharding import check_batch_size, make_mesh
from visxp_jax.train.checkpoint import Checkpoints
from visxp_jax.train.log import Hook, Writer, make_writers
from visxp_jax.train.loop import StopSignal
from visxp_jax.types import Features
from visxp_jax.weights import make_model

PyTree = Any

CHECKPOINTS = "checkpoints"
CONFIG = "config.json"  # written first of these
OUTPUTS = (
    CONFIG,
    "metrics.jsonl",
    "model.npz",
    "model.json",
    "results.json",
    "report.html",
    "hierarchy.html",
)


class Session(NamedTuple):
    """What stays the same during a run."""

    config: TrainConfig
    workdir: Path
    dataset: PreparedDataset
    reader: Reader
    mesh: jax.sharding.Mesh
    model: Model
    encoder: Encoder
    writers: list[Writer]
    hooks: list[Hook]
    checkpoints: Checkpoints
    stop: StopSignal
    begun: float  # on the monotonic clock, moved back by what earlier calls took

    def seconds(self) -> float:
        """Time that the run has taken, in this call and those it goes on from."""
        return time.monotonic() - self.begun

    @property
    def host_batch(self) -> int:
        """Rows of a batch on this host."""
        return self.config.data.batch_size // jax.process_count()

    def clip_names(self, clip_ids: np.ndarray) -> list[str]:
        """'video @ start' of training clips, for people to look them up."""
        index = self.dataset.index("train")
        return [
            f"{printable(Path(str(index['video'][i])))} @ {index['start_s'][i]:g} s"
            for i in clip_ids
        ]

    def features(
        self, params: PyTree, model_state: PyTree, split: str, *, every: int = 1
    ) -> Features:
        """Frozen features of the usable clips of a split whose id `every` divides."""
        batches = self.reader.ordered(split, batch_size=self.host_batch)
        return self.encoder(params, model_state, batches, every=every)


def check_start(config: TrainConfig, workdir: Path) -> None:
    """Refuse before anything is prepared what could not be trained afterwards.

    Args:
        config: Of the run.
        workdir: Locked by the caller.

    Raises:
        VisxpError: the batch does not fit the devices, the network not the clips, or
            the workdir holds a checkpoint of another configuration, or files by the
            names of ours.
    """
    check_ours(workdir)
    check_batch_size(config.data.batch_size, make_mesh())
    # A network that cannot take such clips says so now.
    jax.eval_shape(make_model(config).init, jax.random.key(0))
    found = np.array((workdir / CHECKPOINTS).exists())
    # All hosts look before any of them makes the folder.
    if jax.process_count() > 1:
        found = broadcast_one_to_all(found)
    if found:
        checkpoints = Checkpoints(workdir / CHECKPOINTS, keep=None)
        latest = checkpoints.latest()
        if latest is not None:
            check_same_config(checkpoints.about(latest), config, workdir)
        checkpoints.close()


def check_ours(workdir: Path) -> None:
    """Refuse to write over what no run of ours wrote."""
    found = [name for name in OUTPUTS if (workdir / name).exists()]
    try:
        ours = "stages" in json.loads((workdir / CONFIG).read_bytes())
    except (OSError, ValueError, TypeError):
        ours = False
    if found and not ours:
        raise VisxpError(
            f"--workdir must be new or that of an earlier run, but {workdir} holds a "
            f"{found[0]} of something else; choose another."
        )


@contextmanager
def open_session(
    config: TrainConfig,
    workdir: Path,
    data: Path,
    *,
    begun: float,
    tensorboard: bool,
) -> Iterator[Session]:
    """Open data, devices, checkpoints and writers; close them whatever happens.

    Args:
        config: Of the run.
        workdir: Locked by the caller, and seen by `check_start`.
        data: Prepared data.
        begun: When this call began, on the monotonic clock.
        tensorboard: Also write event files.

    Raises:
        VisxpError: the pieces do not fit together.
    """
    dataset = open_dataset(data)
    mesh = make_mesh()
    check_fits(config, dataset)
    model = make_model(config)
    reader = open_reader(dataset, config.data)
    checkpoints = Checkpoints(workdir / CHECKPOINTS, keep=config.run.keep_checkpoints)
    latest, unlogged = checkpoints.latest(), 0
    if latest is not None:  # before anything is written
        about = checkpoints.about(latest)
        unlogged = len(about["unlogged"][0])
        check_same_data(about, dataset, workdir)
        begun -= about.get("seconds", 0.0)
    stop = StopSignal()
    writers: list[Writer] = []
    hooks: list[Hook] = []
    if jax.process_index() == 0:
        write_whole(workdir / CONFIG, json.dumps(to_dict(config), indent=2))
        writers, hooks = make_writers(
            workdir,
            first_step=latest or 0,
            unlogged=unlogged,
            last_step=config.total_steps,
            tensorboard=tensorboard,
        )
    try:
        yield Session(
            config=config,
            workdir=workdir,
            dataset=dataset,
            reader=reader,
            mesh=mesh,
            model=model,
            encoder=Encoder(model, mesh),
            writers=writers,
            hooks=hooks,
            checkpoints=checkpoints,
            stop=stop,
            begun=begun,
        )
    finally:
        stop.restore()
        for writer in writers:
            writer.close()
        checkpoints.close()


def provenance(config: TrainConfig, dataset: PreparedDataset) -> dict[str, Any]:
    """What made an output: versions, machine, data."""
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "av")
    return {
        "config": config.name,
        "visxp_jax": __version__,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "data": str(dataset.dir),
        "data_sha256": dataset.manifest_sha256,
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def check_fits(config: TrainConfig, dataset: PreparedDataset) -> None:
    """Refuse what cannot work before anything is compiled.

    Raises:
        VisxpError: sizes do not fit; names both numbers.
    """
    wanted = (config.data.spectrogram, config.data.size_px)
    have = (dataset.spectrogram, dataset.size_px)
    if wanted != have:
        raise VisxpError(
            f"data.spectrogram and data.size_px must be those of the prepared data "
            f"{have}, got {wanted}; change them, or prepare again."
        )
    usable = dataset.num_usable("train")
    if usable < config.data.batch_size:
        raise VisxpError(
            f"data.batch_size must not exceed the {usable} usable training clips (with "
            f"sound that is not silent) of {dataset.dir}, got {config.data.batch_size}."
        )
    sounding = dataset.num_usable_videos("train")
    if sounding < 2:
        raise VisxpError(
            f"{dataset.dir} must hold at least 2 training videos with sound, got "
            f"{sounding}: a mismatched pair takes the sound of another video; prepare "
            "more."
        )
    for stage in config.stages:
        clusters = getattr(config.stage(stage), "clusters", 0)
        if usable < clusters:
            raise VisxpError(
                f"{stage}.clusters must not exceed the {usable} usable training clips, "
                f"got {clusters}."
            )
    hosts = jax.process_count()  # each encodes its share of every split
    for split in ("validation", "test"):
        if dataset.num_usable(split) < hosts:
            raise VisxpError(
                f"{dataset.dir} must hold {hosts} usable clips or more for {split}, "
                f"got {dataset.num_usable(split)}; it takes at least three videos with "
                "sound: prepare more."
            )


def check_same_config(
    about: dict[str, Any], config: TrainConfig, workdir: Path
) -> None:
    """Refuse to go on from a checkpoint of another architecture.

    Raises:
        VisxpError: names the first setting that differs.
    """
    then, now = about["config"], json.loads(json.dumps(to_dict(config)))
    for each in (then, now):  # where the data lie may change, not what they are
        for place in ("videos", "labels", "dir"):
            each["data"].pop(place)
    for section in ("model", "data", "stages", "seed", *config.stages):
        old, new = then.get(section), now[section]
        if old == new:
            continue
        if isinstance(old, dict):
            key = next(k for k in new if old.get(k) != new[k])
            section, old, new = f"{section}.{key}", old.get(key), new[key]
        raise VisxpError(
            f"{workdir} holds a checkpoint made with {section}={old!r}, but "
            f"the configuration says {new!r}; use another --workdir to start anew."
        )


def check_same_data(
    about: dict[str, Any], dataset: PreparedDataset, workdir: Path
) -> None:
    """Refuse to go on from a checkpoint made with other data.

    Raises:
        VisxpError: says where each is.
    """
    if about["data_sha256"] != dataset.manifest_sha256:
        raise VisxpError(
            f"{workdir} holds a checkpoint made with other data than "
            f"{dataset.dir}; use another --workdir to start anew."
        )
