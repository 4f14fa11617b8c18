"""What a run is made of, checked in full before any device is touched.

A configuration file in `configs/` fills an `ml_collections.ConfigDict`; `from_dict`
turns it into these frozen dataclasses. A key that does not exist is refused with the
nearest one that does. There are no defaults here: configs/ shows every value.
"""

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from visxp_jax.errors import VisxpError

# Of a stored frame.
MAX_SIZE_PX = 4096


def _require(condition: bool, key: str, must: str, got: Any) -> None:
    if not condition:
        raise VisxpError(f"{key} must be {must}, got {got!r}.")


def _size(key: str, value: int) -> None:
    _require(16 <= value <= MAX_SIZE_PX, key, f"16 to {MAX_SIZE_PX}", value)


def _not_negative(section: Any, *keys: str) -> None:
    for key in keys:
        value = getattr(section, key)
        _require(value >= 0, key, "not negative", value)


def _one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, key, "one of " + ", ".join(choices), value)


@dataclass(frozen=True)
class DataConfig:
    """Where clips come from and how they are batched."""

    videos: str  # folder of videos, or 'demo' for the ones the project renders
    labels: str  # csv of file,label; '' takes subfolders as labels
    dir: str  # prepared data; '' prepares `videos` into WORKDIR/data first
    reader: str  # 'tfrecord' (tf.data) or 'array_record' (grain, no TensorFlow)
    spectrogram: str  # preset of visxp_jax.audio.spectrogram
    size_px: int  # frames are stored at size_px x size_px
    batch_size: int  # over all devices and hosts
    shuffle_buffer: int  # records, tf.data only; grain shuffles all of them
    crop: float  # augmentation: smallest share of each side that is kept; 1 for all
    flip: bool  # augmentation: mirror half of the frames
    colour: float  # augmentation: strength of a random mix of the colour channels
    brightness: float  # augmentation: +- this share of full scale
    roll: bool  # augmentation: sounds begin anywhere and wrap around
    gain: float  # augmentation: +- this much on the normalised log-mel
    mask: float  # augmentation: largest share of bands and of frames masked out

    def __post_init__(self) -> None:
        """Check ranges."""
        _one_of("reader", self.reader, ("tfrecord", "array_record"))
        _one_of("spectrogram", self.spectrogram, ("visxp", "mel", "l3net"))
        _size("size_px", self.size_px)
        _require(bool(self.videos or self.dir), "videos", "a folder", self.videos)
        _require(
            self.batch_size >= 2,
            "batch_size",
            "at least 2 (a mismatched pair needs two clips)",
            self.batch_size,
        )
        _require(
            self.shuffle_buffer >= 1,
            "shuffle_buffer",
            "at least 1",
            self.shuffle_buffer,
        )
        _require(0 < self.crop <= 1, "crop", "in (0, 1]", self.crop)
        _require(0 <= self.mask < 1, "mask", "in [0, 1)", self.mask)
        _not_negative(self, "colour", "brightness", "gain")


@dataclass(frozen=True)
class ModelConfig:
    """The two towers and their fusion."""

    network: str  # 'avnet' (GELU) or 'l3net' (ReLU)
    audio: str  # 'cnn' or 'rnn'
    width: int  # channels of the first block; vectors have 8 times as many
    double_convolution: bool
    pool: str  # last max-pool: 'published' window, or 'all' of the map
    fusion_dim: int
    frame_mean: tuple[float, ...]  # of R, G, B in [0, 1]: subtracted, ...
    frame_std: tuple[float, ...]  # ... then divided by
    sound_mean: float  # the same of normalised log-mels
    sound_std: float
    bn_momentum: float  # share of the old running value (Flax's sense)
    dtype: str  # of the computation in the towers

    def __post_init__(self) -> None:
        """Check ranges."""
        _one_of("network", self.network, ("avnet", "l3net"))
        _one_of("audio", self.audio, ("cnn", "rnn"))
        _one_of("pool", self.pool, ("published", "all"))
        _one_of("dtype", self.dtype, ("float32", "bfloat16"))
        _require(self.width >= 2, "width", "at least 2", self.width)
        _require(self.fusion_dim >= 2, "fusion_dim", "at least 2", self.fusion_dim)
        for key in ("frame_mean", "frame_std"):
            value = getattr(self, key)
            _require(len(value) == 3, key, "3 numbers", value)
        _require(min(self.frame_std) > 0, "frame_std", "above 0", self.frame_std)
        _require(self.sound_std > 0, "sound_std", "above 0", self.sound_std)
        _require(0 < self.bn_momentum < 1, "bn_momentum", "in (0, 1)", self.bn_momentum)


@dataclass(frozen=True)
class EncoderConfig:
    """What a trained network is, and what it takes: all that using it needs."""

    name: str  # of the run, or of the system it comes from
    spectrogram: str  # preset of visxp_jax.audio.spectrogram
    size_px: int  # of frames
    model: ModelConfig

    def __post_init__(self) -> None:
        """Check ranges."""
        _one_of("spectrogram", self.spectrogram, ("visxp", "mel", "l3net"))
        _size("size_px", self.size_px)


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser of one stage: warm-up, then half a cosine down to zero."""

    name: str  # 'adam' or 'sgd' (momentum 0.9)
    learning_rate: float
    warmup_steps: int
    weight_decay: float  # L2 added to the gradient, as in the published recipes

    def __post_init__(self) -> None:
        """Check ranges."""
        _one_of("name", self.name, ("adam", "sgd"))
        _require(self.learning_rate > 0, "learning_rate", "above 0", self.learning_rate)
        _not_negative(self, "warmup_steps", "weight_decay")


@dataclass(frozen=True)
class AvcConfig:
    """Stage 'avc': do picture and sound belong together?"""

    steps: int
    optim: OptimConfig
    shifts: int  # mismatched sounds per clip
    regularisation: float  # weight of the decorrelation penalty

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.steps >= 1, "steps", "at least 1", self.steps)
        _require(self.shifts >= 1, "shifts", "at least 1", self.shifts)
        _not_negative(self, "regularisation")


@dataclass(frozen=True)
class ContrastiveConfig:
    """Stage 'contrastive': a space that sight and sound have in common."""

    steps: int
    optim: OptimConfig
    dimensions: int  # of the space
    temperature: float
    representation: float  # weight of the loss of 'avc' beside it; 0: no such head
    shifts: int  # mismatched sounds per clip in that loss

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.steps >= 1, "steps", "at least 1", self.steps)
        _require(self.dimensions >= 2, "dimensions", "at least 2", self.dimensions)
        # Below, differences of cosines in float32 are noise.
        _require(self.temperature >= 1e-3, "temperature", ">= 0.001", self.temperature)
        _require(self.shifts >= 1, "shifts", "at least 1", self.shifts)
        _not_negative(self, "representation")


@dataclass(frozen=True)
class ClusterConfig:
    """What the stages that learn from pseudo-labels have in common."""

    steps: int
    optim: OptimConfig
    clusters: int
    relabels: int  # number of times that labels are made
    relabel_power: float  # at steps * (i / relabels)^power; above 1: dense early
    augmented_pass: bool  # labels are of augmented clips (SeLa, SeLaVi)
    train_mode_pass: bool  # and BatchNorm goes by the batch (SeLa)
    feature_dtype: str  # of the vectors that are kept while labels are made
    balanced_sampling: bool  # every pseudo-label is seen equally often
    clustering: float  # weight of the cross-entropy to pseudo-labels
    representation: float  # weight of the correspondence loss, kept beside it
    shifts: int  # mismatched sounds per clip in that loss
    regularisation: float  # weight of the decorrelation penalty

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.steps >= 1, "steps", "at least 1", self.steps)
        _require(self.relabel_power > 0, "relabel_power", "above 0", self.relabel_power)
        _require(self.clusters >= 2, "clusters", "at least 2", self.clusters)
        _require(self.shifts >= 1, "shifts", "at least 1", self.shifts)
        _require(self.relabels >= 1, "relabels", ">= 1", self.relabels)
        _one_of("feature_dtype", self.feature_dtype, ("float32", "float16"))
        weights = ("clustering", "representation", "regularisation")
        _not_negative(self, *weights)


@dataclass(frozen=True)
class SelflabelConfig(ClusterConfig):
    """Stage 'selflabel': cross-entropy to equal-sized pseudo-labels."""

    heads: int
    sharpness: float  # of the assignment (the paper's lambda)
    # What the labels follow. 'fused': heads on the fused vector. Else each modality has
    # heads of its own: 'pooled' takes the mean of their log probabilities (SeLaVi),
    # 'video' or 'audio' one of them for both, 'swapped' each for the other.
    labels_from: str
    first_labels: str  # 'features' (balanced k-means), 'heads', or 'random' and equal
    # Of clusters, where labels come from heads. 'gaussian': unequal as in SeLaVi's
    # paper. 'free': each clip its likeliest cluster, no balance, to see the collapse.
    sizes: str
    align: bool  # number the audio heads' clusters as the video heads' do, once
    # 'shared': one pass over the clips labels all heads. 'each': one pass for every
    # group of heads (SeLaVi). 'in_turn': after the first, one group at a time (SeLa).
    passes: str
    head_groups: int

    def __post_init__(self) -> None:
        """Check ranges, and that options do not contradict each other."""
        super().__post_init__()
        _require(self.heads >= 1, "heads", "at least 1", self.heads)
        _require(self.sharpness > 0, "sharpness", "> 0", self.sharpness)
        sources = ("fused", "pooled", "video", "audio", "swapped")
        _one_of("labels_from", self.labels_from, sources)
        _one_of("first_labels", self.first_labels, ("features", "heads", "random"))
        _one_of("sizes", self.sizes, ("equal", "gaussian", "free"))
        _one_of("passes", self.passes, ("shared", "each", "in_turn"))
        _require(
            1 <= self.head_groups <= self.heads,
            "head_groups",
            f"1 to heads={self.heads}",
            self.head_groups,
        )
        _require(
            self.passes != "each" or self.augmented_pass,
            "passes",
            "'shared' or 'in_turn' without augmented_pass, as passes would be the same",
            self.passes,
        )
        separate = ("pooled", "swapped")
        apart = self.labels_from in separate and self.first_labels == "heads"
        _require(
            apart or not self.align,
            "align",
            f"False unless first_labels is 'heads' and labels_from one of {separate}",
            self.align,
        )
        _require(
            self.align or not apart or self.labels_from == "pooled",
            "align",
            "True for swapped first labels by heads, which number clusters at random",
            self.align,
        )
        _require(
            (self.passes == "shared") == (self.head_groups == 1),
            "head_groups",
            "1 with passes='shared', and more otherwise",
            self.head_groups,
        )


@dataclass(frozen=True)
class XdcConfig(ClusterConfig):
    """Stage 'xdc': k-means labels of each modality teach the other."""


@dataclass(frozen=True)
class ShhcConfig(ClusterConfig):
    """Stage 'shhc': a hierarchy of equal-sized clusters in the Poincare ball."""

    sharpness: float  # of the assignment
    # 'fused': one hierarchy of both modalities together. 'pooled': one that each
    # modality is led to by itself. 'swapped': one of each, which teaches the other.
    labels_from: str
    dimensions: int  # of the ball
    embedding: float  # weight of the loss over triples of clusters
    embedding_steps: int  # taken at once whenever labels are made
    embedding_rate: float  # of these
    embedding_temperature: float
    form: str  # how clips are led to their cluster: 'ce', 'dist' or 'tree'
    temperature: float  # of the softmax over distances, in labels and loss
    tree_temperature: float  # of the soft labels of 'tree'

    def __post_init__(self) -> None:
        """Check ranges."""
        _require(self.clusters >= 3, "clusters", "at least 3", self.clusters)
        super().__post_init__()
        _one_of("labels_from", self.labels_from, ("fused", "pooled", "swapped"))
        _one_of("form", self.form, ("ce", "dist", "tree"))
        _require(
            2 <= self.dimensions <= self.clusters,
            "dimensions",
            f"2 to clusters={self.clusters}",
            self.dimensions,
        )
        _require(
            self.embedding_steps >= 1,
            "embedding_steps",
            "at least 1",
            self.embedding_steps,
        )
        _not_negative(self, "embedding")
        for key in (
            "sharpness",
            "embedding_rate",
            "embedding_temperature",
            "temperature",
            "tree_temperature",
        ):
            _require(getattr(self, key) > 0, key, "above 0", getattr(self, key))


@dataclass(frozen=True)
class RunConfig:
    """How often a run writes, looks, and saves; in steps."""

    log_every: int
    eval_every: int
    save_every: int
    keep_checkpoints: int
    max_skipped: int  # consecutive steps with NaN or infinity before giving up

    def __post_init__(self) -> None:
        """Check ranges."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            _require(value >= 1, field.name, "at least 1", value)


@dataclass(frozen=True)
class TrainConfig:
    """One run: data, model, and the stages in order."""

    name: str
    seed: int
    stages: tuple[str, ...]
    data: DataConfig
    model: ModelConfig
    run: RunConfig
    avc: AvcConfig | None = None
    contrastive: ContrastiveConfig | None = None
    selflabel: SelflabelConfig | None = None
    shhc: ShhcConfig | None = None
    xdc: XdcConfig | None = None

    def __post_init__(self) -> None:
        """Check that every stage has its section."""
        known = ("avc", "contrastive", "selflabel", "shhc", "xdc")
        _require(
            len(self.stages) > 0, "stages", f"at least one of {', '.join(known)}", ()
        )
        _require(
            len(set(self.stages)) == len(self.stages),
            "stages",
            "a list without repeats",
            self.stages,
        )
        _require(0 <= self.seed < 2**16, "seed", "in [0, 65536)", self.seed)
        for stage in self.stages:
            _one_of("stages", stage, known)
            if getattr(self, stage) is None:
                raise VisxpError(
                    f"stage {stage!r} needs a section config.{stage}; see configs/."
                )
            _require(
                self.stage(stage).shifts < self.data.batch_size,
                f"{stage}.shifts",
                f"less than data.batch_size={self.data.batch_size}",
                self.stage(stage).shifts,
            )

    def stage(self, name: str) -> Any:
        """Section of a stage, such as `AvcConfig`."""
        return getattr(self, name)

    @property
    def encoder(self) -> EncoderConfig:
        """What is left of it once the network is trained."""
        data = self.data
        return EncoderConfig(self.name, data.spectrogram, data.size_px, self.model)

    @property
    def total_steps(self) -> int:
        """Steps of all stages together."""
        return sum(self.stage(name).steps for name in self.stages)


def unknown_key(path: str, known: list[str]) -> str:
    """The one line that says which key was probably meant."""
    prefix, _, last = path.rpartition(".")
    near = difflib.get_close_matches(last, known, n=1)
    dot = f"{prefix}." if prefix else ""
    hint = f"did you mean '{dot}{near[0]}'?" if near else f"known: {', '.join(known)}."
    return f"unknown config key '{path}'; {hint}"


def _section(annotation: Any) -> type | None:
    """The dataclass in `annotation`, looking through `X | None`."""
    for candidate in (annotation, *typing.get_args(annotation)):
        if dataclasses.is_dataclass(candidate):
            return typing.cast(type, candidate)
    return None


def _build(cls: type, values: Mapping[str, Any], path: str) -> Any:
    if not hasattr(values, "keys"):  # ConfigDict is no Mapping
        raise VisxpError(f"{path or 'config'} must be a section of keys.")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            raise VisxpError(unknown_key(f"{path}{key}", list(fields)))
    arguments = {}
    for key, field in fields.items():
        if key not in values:
            if field.default is dataclasses.MISSING:
                raise VisxpError(f"config key '{path}{key}' is missing; see configs/.")
            continue
        arguments[key] = _value(hints[key], values[key], f"{path}{key}")
    try:
        return cls(**arguments)
    except VisxpError as error:
        raise VisxpError(f"{path}{error}") from error  # a section knows its keys alone


def _value(annotation: Any, value: Any, path: str) -> Any:
    section = _section(annotation)
    if section is not None:
        if value is None and type(None) in typing.get_args(annotation):
            return None
        if value is None or not hasattr(value, "keys"):  # ConfigDict is no Mapping
            raise VisxpError(f"{path} must be a section of keys, got {value!r}.")
        return _build(section, value, f"{path}.")
    if annotation == tuple[str, ...]:
        if not isinstance(value, (list, tuple)):
            raise VisxpError(f"{path} must be a list of names, got {value!r}.")
        return tuple(str(v) for v in value)
    if annotation == tuple[float, ...]:
        if not isinstance(value, (list, tuple)):
            raise VisxpError(f"{path} must be a list of numbers, got {value!r}.")
        return tuple(_value(float, one, path) for one in value)
    if annotation is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if type(value) is not annotation:
        raise VisxpError(
            f"{path} must be {annotation.__name__}, got {type(value).__name__} "
            f"{value!r}."
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise VisxpError(f"{path} must be a finite number, got {value!r}.")
    return value


def from_dict(values: Mapping[str, Any]) -> TrainConfig:
    """Check a configuration and freeze it.

    Args:
        values: Nested mapping, such as an `ml_collections.ConfigDict`.

    Returns:
        `TrainConfig`.

    Raises:
        VisxpError: an unknown, missing or mistyped key, or a value out of range; one
            line that names the key.
    """
    return _build(TrainConfig, values, "")


def encoder_from_dict(values: Mapping[str, Any]) -> EncoderConfig:
    """What `to_dict` made of an `EncoderConfig`; errors are those of `from_dict`."""
    return _build(EncoderConfig, values, "encoder.")


def to_dict(config: TrainConfig | EncoderConfig) -> dict[str, Any]:
    """Plain nested dict, as written beside the results; `from_dict` reads it back."""
    return dataclasses.asdict(config)
