"""Networks of VisXP's production system, with random weights: a child process.

    python torch_production.py OUT --seed=0

Run by `experiments.torch_parity`; needs torch and numpy alone. Modules have the names
of the original, which are those of its checkpoints. Writes OUT/NAME.tar and NAME.yml
for each network, as torch.save and the original's tools do, and NAME.npz with what the
network makes of OUT/inputs.npz: pictures uint8 [h, w, 3] by names from p0 on, and
spectrograms [1, 257, 99] from s0 on, zeros where one is missing.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

WIDTHS = (64, 128, 256, 512)
CLASSES = 339
INPUTS = """INPUT:
  KEYFRAME:
    DIMENSIONALITY: (256, 256)
    NORMALIZATION: ((0.3961, 0.3502, 0.3224), (0.2298, 0.2237, 0.2197))
"""
SOUNDS = """  SPECTROGRAM:
    DIMENSIONALITY: (1, 257, 99)
    NORMALIZATION: ((0.0467), (0.9170))
    SAMPLERATE_HZ: 24000
"""


class Tower(nn.Module):
    """Four blocks of 3x3 convolutions, each of one or two."""

    def __init__(self, channels: int, last: tuple[int, int], *, double: bool) -> None:
        """Layers for an input of so many channels."""
        super().__init__()
        self.names = []
        for block, width in enumerate(WIDTHS, start=1):
            for half in ("", "B") if double else ("",):
                stride = 2 if block == 1 and not half else 1
                name = f"conv{block}{half}"
                conv = nn.Conv2d(channels, width, 3, stride=stride, padding=1)
                setattr(self, name, conv)
                setattr(self, f"{name}_bn", nn.BatchNorm2d(width, 1e-3, 0.99))
                self.names.append(name)
                channels = width
        self.last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b, channels, h, w] -> [b, 512]."""
        for i, name in enumerate(self.names):
            if i and not name.endswith("B"):
                x = nn.functional.max_pool2d(x, 2)
            x = getattr(self, f"{name}_bn")(getattr(self, name)(x))
            x = nn.functional.gelu(x)
        return nn.functional.max_pool2d(x, self.last).flatten(1)


class AVNet(nn.Module):
    """Both towers and their fusion, and two layers that nothing uses."""

    def __init__(self, *, double: bool) -> None:
        """Layers."""
        super().__init__()
        self.video_model = Tower(3, (14, 14), double=double)
        self.video_model.fc = nn.Linear(512, CLASSES)
        self.audio_model = Tower(1, (16, 6), double=double)
        self.audio_model.fc = nn.Linear(512, CLASSES)
        self.lin1 = nn.Linear(1024, 512)
        self.lin2 = nn.Linear(512, CLASSES)


def randomise(net: nn.Module) -> None:
    """Weights and statistics as after some training, so that no layer dies."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.normal_(module.bias, std=0.1)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.1)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            module.running_var.copy_(torch.exp(0.2 * torch.randn(module.num_features)))


def inputs(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """As the original prepares them: normalised, then resized."""
    mean = torch.tensor((0.3961, 0.3502, 0.3224))[:, None, None]
    std = torch.tensor((0.2298, 0.2237, 0.2197))[:, None, None]
    frames, sounds = [], []
    with np.load(path) as stored:
        for i in range(sum(name.startswith("p") for name in stored.files)):
            frame = torch.from_numpy(stored[f"p{i}"]).permute(2, 0, 1) / 255.0
            frames.append(
                nn.functional.interpolate(
                    ((frame - mean) / std)[None],
                    (256, 256),
                    mode="bilinear",
                    antialias=True,
                )
            )
            sound = torch.zeros(1, 257, 99)
            if f"s{i}" in stored:
                sound = (torch.from_numpy(stored[f"s{i}"]) - 0.0467) / 0.9170
            sounds.append(sound)
    return torch.cat(frames), torch.stack(sounds)


def main() -> None:
    """Write all four."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    frame, sound = inputs(args.out / "inputs.npz")
    for double in (True, False):
        convolution = f"  DOUBLE_CONVOLUTION: {str(double).lower()}\n"
        ending = "double" if double else "single"
        both = AVNet(double=double)
        sight = Tower(3, (14, 14), double=double)
        with torch.no_grad():
            randomise(both)
            randomise(sight)
            both.eval()
            sight.eval()
            name = args.out / f"avnet_{ending}"
            torch.save({"epoch": 1, "state_dict": both.state_dict()}, f"{name}.tar")
            model = f"MODEL:\n  TYPE: AVNet\n  N_CLASSES: {CLASSES}\n{convolution}"
            Path(f"{name}.yml").write_text(model + INPUTS + SOUNDS, encoding="utf-8")
            video, audio = both.video_model(frame), both.audio_model(sound)
            np.savez(f"{name}.npz", video=video.numpy(), audio=audio.numpy())
            name = args.out / f"visualnet_{ending}"
            torch.save(sight.state_dict(), f"{name}.tar")
            model = f"MODEL:\n  TYPE: VisualNet\n{convolution}"
            Path(f"{name}.yml").write_text(model + INPUTS, encoding="utf-8")
            np.savez(f"{name}.npz", video=sight(frame).numpy())
    print(torch.__version__)


if __name__ == "__main__":
    main()
