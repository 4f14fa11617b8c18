"""AVNet in PyTorch, as a child of `experiments.bench.encoder`; needs torch and numpy.

Reads one JSON line per request on standard input, {"work": "train" | "extract",
"repeats": n}, and answers with one line when the work is done.
"""

import argparse
import json

import torch
from torch import nn

WIDTHS = (64, 128, 256, 512)


class Tower(nn.Module):
    """Four blocks of two 3x3 convolutions, max-pool between and at the end."""

    def __init__(self, channels: int, last_pool: tuple[int, int]) -> None:
        """Layers for an input of so many channels."""
        super().__init__()
        layers: list[nn.Module] = []
        for block, width in enumerate(WIDTHS):
            if block:
                layers.append(nn.MaxPool2d(2))
            for half in range(2):
                stride = 2 if block == half == 0 else 1
                layers += [
                    nn.Conv2d(channels, width, 3, stride=stride, padding=1),
                    # 0.01 in torch's sense is 0.99 in Flax's.
                    nn.BatchNorm2d(width, eps=1e-3, momentum=0.01),
                    nn.GELU(),
                ]
                channels = width
        self.layers = nn.Sequential(*layers, nn.MaxPool2d(last_pool), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b, channels, h, w] -> [b, 512]."""
        return self.layers(x)


class AVNet(nn.Module):
    """Both towers, fusion, and the head of two outputs."""

    def __init__(self) -> None:
        """For 256 x 256 pixels and 257 x 99 log-mels."""
        super().__init__()
        self.video = Tower(3, (14, 14))
        self.audio = Tower(1, (16, 6))
        self.fusion = nn.Sequential(nn.Linear(1024, 512), nn.GELU())
        self.head = nn.Linear(512, 2)
        self.register_buffer("mean", torch.tensor((0.3961, 0.3502, 0.3224)))
        self.register_buffer("std", torch.tensor((0.2298, 0.2237, 0.2197)))

    def embed(
        self, frame: torch.Tensor, log_mel: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 [b, h, w, 3] and float16 [b, m, f] -> two times [b, 512]."""
        image = (frame.float() / 255 - self.mean) / self.std
        # Stored as [b, h, w, c] already: a view of it in channels_last, not a copy.
        image = image.permute(0, 3, 1, 2)
        sound = log_mel.float()[:, None].contiguous(memory_format=torch.channels_last)
        return self.video(image), self.audio(sound)

    def fuse(self, video: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        """[b, 512], [b, 512] -> [b, 512]."""
        return self.fusion(torch.cat((video, audio), dim=1))


class Worker:
    """One network, its optimiser and one batch."""

    def __init__(self, batch: int) -> None:
        """Random frames and log-mels."""
        torch.manual_seed(0)
        self.net = AVNet().to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(
            self.net.parameters(), lr=1e-4, weight_decay=1e-5
        )
        self.frame = torch.randint(0, 255, (batch, 256, 256, 3), dtype=torch.uint8)
        self.log_mel = torch.randn(batch, 257, 99).half()
        self.matches = torch.cat((torch.ones(batch), torch.zeros(batch))).long()

    def train(self) -> None:
        """One step: matching pairs, and as many mismatched by one place."""
        self.net.train()
        video, audio = self.net.embed(self.frame, self.log_mel)
        pairs = self.net.fuse(
            torch.cat((video, video)), torch.cat((audio, audio.roll(-1, dims=0)))
        )
        loss = nn.functional.cross_entropy(self.net.head(pairs), self.matches)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        loss.item()

    def extract(self) -> None:
        """Vectors of one batch, and their fusion."""
        self.net.eval()
        with torch.inference_mode():
            self.net.fuse(*self.net.embed(self.frame, self.log_mel))


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    worker = Worker(args.batch)
    count = sum(p.numel() for p in worker.net.parameters())
    print(json.dumps({"parameters": count, "torch": torch.__version__}), flush=True)
    works = {"train": worker.train, "extract": worker.extract}
    while True:
        try:
            request = json.loads(input())
        except EOFError:
            return
        for _ in range(request["repeats"]):
            works[request["work"]]()
        print(json.dumps("done"), flush=True)


if __name__ == "__main__":
    main()
