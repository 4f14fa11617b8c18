"""The triplet loss as published, in PyTorch; a child of `experiments.bench.triplets`.

The ancestor of two leaves is found by inversion in a circle and reflection, as in the
appendix of Chami et al., 2020; float64, as their settings are, or float32.
"""

import argparse
import json
import time

import torch

BOUNDARY = {torch.float64: 1 - 1e-5, torch.float32: 1 - 1e-5}


def invert(x: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """In the circle around `centre` that is orthogonal to the unit circle."""
    away = x - centre
    power = centre.square().sum(-1, keepdim=True) - 1
    return centre + power * away / away.square().sum(-1, keepdim=True).clamp_min(1e-15)


def depth(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Distance from 0 of the geodesic through a and b."""
    centre = a / a.square().sum(-1, keepdim=True)
    other = invert(b, centre)
    along = (a * other).sum(-1, keepdim=True)
    square = other.square().sum(-1, keepdim=True).clamp_min(1e-15)
    mirrored = invert(2 * along * other / square - a, centre)
    rest = (1 - mirrored.square().sum(-1, keepdim=True)).clamp_min(0)
    foot = (mirrored / (1 + rest.sqrt())).norm(dim=-1)
    edge = BOUNDARY[foot.dtype]
    return 2 * torch.atanh(foot.double().clamp(-edge, edge)).to(foot.dtype)


def loss(
    table: torch.Tensor,
    scale: torch.Tensor,
    similarity: torch.Tensor,
    triples: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    """Mean over triples [b, 3]."""
    unit = table / table.norm(dim=-1, keepdim=True)
    points = unit * scale.clamp(1e-2, 1 - 1e-3)
    x, y, z = (points[triples[:, i]] for i in range(3))
    depths = torch.stack([depth(x, y), depth(x, z), depth(y, z)], dim=-1)
    near = torch.stack(
        [similarity[triples[:, i], triples[:, j]] for i, j in ((0, 1), (0, 2), (1, 2))],
        dim=-1,
    )
    share = torch.softmax(depths / temperature, dim=-1)
    return (near.sum(-1) - (near * share).sum(-1)).mean()


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--dtype", choices=["float32", "float64"], required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dtype = getattr(torch, args.dtype)
    x = torch.nn.functional.normalize(torch.randn(args.leaves, 16, dtype=dtype))
    similarity = (1 + x @ x.T) / 2
    table = torch.randn(args.leaves, 2, dtype=dtype, requires_grad=True)
    scale = torch.tensor(0.5, dtype=dtype, requires_grad=True)
    print(json.dumps({"torch": torch.__version__}), flush=True)
    while True:
        try:
            request = json.loads(input())
        except EOFError:
            return
        begun = time.perf_counter()
        for _ in range(request["repeats"]):
            triples = torch.randint(args.leaves, (args.batch, 3))
            table.grad = scale.grad = None
            loss(table, scale, similarity, triples, 0.05).backward()
        print(json.dumps(time.perf_counter() - begun), flush=True)


if __name__ == "__main__":
    main()
