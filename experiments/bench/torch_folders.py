"""VisXP's network on VisXP's folders, as a child of `experiments.bench.segment`.

Needs torch, numpy and OpenCV. Writes OUT/avnet.tar and avnet.yml, random weights, then
reads one JSON line per request on standard input, {"folder": path, "batch": n}, and
answers with the number of rows; with "out", the rows [audio, video] go into that file.
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))
from torch_production import CLASSES, INPUTS, SOUNDS, AVNet, randomise

MEAN = torch.tensor((0.3961, 0.3502, 0.3224))[:, None, None]
STD = torch.tensor((0.2298, 0.2237, 0.2197))[:, None, None]


def read_picture(path: Path) -> torch.Tensor:
    """Normalised, then resized, as the original does it."""
    data = np.fromfile(path, np.uint8)
    picture = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    frame = torch.from_numpy(picture).permute(2, 0, 1) / 255.0
    return nn.functional.interpolate(
        ((frame - MEAN) / STD)[None], (256, 256), mode="bilinear", antialias=True
    )[0]


def read_sound(path: Path) -> torch.Tensor:
    """Normalised; zeros if there is none. The file is one that we have written."""
    if not path.exists():
        return torch.zeros(1, 257, 99)
    with np.load(path, allow_pickle=True) as stored:
        sound = torch.from_numpy(stored["arr_0"].item()["audio"])
    return (sound - 0.0467) / 0.9170


def rows_of(net: AVNet, folder: Path, batch: int) -> np.ndarray:
    """[keyframes, 1024]."""
    times = sorted(int(path.stem) for path in (folder / "keyframes").iterdir())
    rows = []
    for first in range(0, len(times), batch):
        chosen = times[first : first + batch]
        frames = [read_picture(folder / "keyframes" / f"{ms}.jpg") for ms in chosen]
        sounds = [
            read_sound(folder / "spectrograms" / f"{ms}_24000.npz") for ms in chosen
        ]
        last = torch.channels_last
        with torch.inference_mode():
            frame = torch.stack(frames).contiguous(memory_format=last)
            sound = torch.stack(sounds).contiguous(memory_format=last)
            both = net.audio_model(sound), net.video_model(frame)
            rows.append(torch.cat(both, dim=1).numpy())
    return np.concatenate(rows)


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    net = AVNet(double=True)
    with torch.no_grad():
        randomise(net)
    torch.save({"state_dict": net.state_dict()}, args.out / "avnet.tar")
    model = f"MODEL:\n  TYPE: AVNet\n  N_CLASSES: {CLASSES}\n"
    text = f"{model}  DOUBLE_CONVOLUTION: true\n{INPUTS}{SOUNDS}"
    (args.out / "avnet.yml").write_text(text, encoding="utf-8")
    net = net.eval().to(memory_format=torch.channels_last)
    print(json.dumps({"torch": torch.__version__}), flush=True)
    while True:
        try:
            request = json.loads(input())
        except EOFError:
            return
        rows = rows_of(net, Path(request["folder"]), request["batch"])
        if "out" in request:
            np.save(request["out"], rows)
        print(json.dumps(len(rows)), flush=True)


if __name__ == "__main__":
    main()
