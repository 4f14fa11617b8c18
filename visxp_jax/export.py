"""A trained model for others: `visxp export --workdir=... --out=...`.

Writes three files into a folder: the weights as model.safetensors; encoder.stablehlo,
the encoder with its weights as a program that jax runs without this project; and
README.md, a card that says what made them, how good they are, and how to use them.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jax import export
from safetensors.numpy import save

from visxp_jax.atomic import write_whole
from visxp_jax.command_line import Parser, command
from visxp_jax.config import to_dict
from visxp_jax.errors import VisxpError
from visxp_jax.weights import Trained, load_weights

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
CARD = """# {name}

An audio-visual encoder: one picture and one second of sound to a vector each. {origin}

## Use

```python
import numpy as np
from jax import export

encoder = export.deserialize(bytearray(open("encoder.stablehlo", "rb").read()))
frame = np.zeros((1, {size}, {size}, 3), np.uint8)  # RGB
log_mel = np.zeros((1, {bands}, {frames}), np.float32)
vectors = encoder.call(frame, log_mel)
```

'video' and 'audio' are vectors of {width} numbers, 'fused' of {fused}. Any number of
rows; on {platforms}. `log_mel` is of one second at {rate:,} Hz, by this recipe, in
which frames are Fourier-transformed, their power is summed into bands, and its natural
log is normalised:

```json
{spectrogram}
```

`model.safetensors` has the same weights, by the names of the network's layers; its
metadata have the configuration.

## What made it

| | |
|---|---|
{made}

## Figures

{figures}

Configuration:

```json
{config}
```
"""


# Of the machine that trained it: of no use elsewhere, and perhaps not for all to see.
PATHS = ("data", "checkpoint")
DATA_PATHS = ("videos", "labels", "dir")


def shareable(trained: Trained) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What made a model, and the configuration of its run if any; of paths the ends."""
    about = {key: value for key, value in trained.about.items() if key not in PATHS}
    if trained.config is None:
        return about, None
    config = to_dict(trained.config)
    data = config["data"]
    data |= {key: Path(data[key]).name for key in DATA_PATHS}
    return about, config


def encoder_program(trained: Trained) -> bytes:
    """The encoder with its weights, as `jax.export.deserialize` takes it.

    A function of frames uint8 [b, h, w, 3] and log-mels float32 [b, m, f], for any b,
    to a dict of float32 vectors: 'video' and 'audio' [b, d], 'fused' [b, fusion_dim].
    """
    model, size = trained.model, trained.encoder.size_px

    def encoder(frame: jax.Array, log_mel: jax.Array) -> dict[str, jax.Array]:
        (video, audio), _ = model.embed(
            trained.params, trained.model_state, frame, log_mel, train=False
        )
        fused = model.fuse(trained.params, video, audio)
        return {"video": video, "audio": audio, "fused": fused}

    (rows,) = export.symbolic_shape("b")
    frame = jax.ShapeDtypeStruct((rows, size, size, 3), jnp.uint8)
    log_mel = jax.ShapeDtypeStruct((rows, *trained.spectrogram.shape), jnp.float32)
    program = export.export(jax.jit(encoder), platforms=PLATFORMS)(frame, log_mel)
    return bytes(program.serialize())


def safetensors(trained: Trained) -> bytes:
    """All weights, with the configuration in the metadata."""
    tree = {"params": trained.params, "model_state": trained.model_state}
    flat = flatten_dict(tree, sep="/")
    arrays = {name: np.ascontiguousarray(value) for name, value in flat.items()}
    about, config = shareable(trained)
    told = {**about, "encoder": to_dict(trained.encoder), "config": config}
    return save(arrays, metadata={key: json.dumps(x) for key, x in told.items()})


def cell(value: Any) -> str:
    """A value in a table of Markdown: in one line, without bars."""
    text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(text.split()).replace("|", "\\|")


def card(trained: Trained) -> str:
    """README.md, Markdown; paths of the machine that trained it are left out.

    Args:
        trained: From `load_weights`.
    """
    results = trained.about.get("figures", {})
    encoder, recipe = trained.encoder, trained.spectrogram
    about, config = shareable(trained)
    origin = "Its weights come from elsewhere."
    if config:
        origin = f"Trained by visxp_jax in the stages {', '.join(config['stages'])}."
    from visxp_jax.report.collect import MEANINGS, of_levels  # late: it loads much

    meanings = MEANINGS | of_levels(results)
    made = [
        f"| {cell(key)} | {cell(value)} |"
        for key, value in about.items()
        if key not in ("label_names", "figures")
    ]
    rows = [
        f"| {cell(name)} | {value:.4g} | {cell(meanings.get(name, ('',))[0])} |"
        for name, value in results.items()
        if isinstance(value, int | float)
    ]
    table = ["| figure | value | meaning |", "|---|---|---|", *rows]
    return CARD.format(
        name=encoder.name,
        origin=origin,
        size=encoder.size_px,
        bands=recipe.bands,
        frames=recipe.frames,
        rate=recipe.rate_hz,
        width=8 * encoder.model.width,
        fused=encoder.model.fusion_dim,
        platforms=", ".join(PLATFORMS),
        spectrogram=json.dumps(dataclasses.asdict(recipe), indent=1),
        made="\n".join(made),
        figures="\n".join(table) if rows else "None were kept with the weights.",
        config=json.dumps(config or to_dict(encoder), indent=1),
    )


def run(workdir: Path, out: Path) -> None:
    """Write the three files.

    Raises:
        VisxpError: there is no model, or `out` cannot be written to.
    """
    trained = load_weights(workdir)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / "model.safetensors", safetensors(trained))
        write_whole(out / "encoder.stablehlo", encoder_program(trained))
        write_whole(out / "README.md", card(trained))
    except OSError as error:
        raise VisxpError(f"cannot write to {out}: {error}.") from error


@command("stopped; the same command begins anew.")
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = Parser("visxp export", __doc__)
    parser.add_argument(
        "--workdir", required=True, type=Path, help="of a finished training run"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    args = parser.parse_args(argv)
    run(args.workdir, args.out)
    print(f"{args.out}: model.safetensors, encoder.stablehlo, README.md")


if __name__ == "__main__":
    sys.exit(main())
