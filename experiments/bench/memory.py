"""Memory of preparation, extraction and segments, of a short video and of a long one.

    python -m experiments.bench.memory --workdir=runs/demo --minutes 2 120

Makes a video of each length (320 x 180, 25 frames and 24,000 samples a second, all
frames different, one shot), prepares it, extracts its features, and makes VisXP's
folder of it, each by its own command, and looks 20 times a second at what all
processes of a command hold together.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import av
import numpy as np

from experiments.bench.measure import arguments, finish

FPS, SIZE, RATE_HZ = 25, (180, 320), 24_000
LOOK_EVERY_S = 0.05


def write_video(path: Path, minutes: int) -> None:
    """Bars that move over noise, and a tone that rises."""
    noise = np.random.default_rng(0).integers(0, 60, (*SIZE, 3))
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.height, video.width = SIZE
        video.pix_fmt, video.options = "yuv420p", {"preset": "ultrafast"}
        audio = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        time_s = np.arange(RATE_HZ) / RATE_HZ
        for second in range(60 * minutes):
            for i in range(FPS):
                image = np.roll(noise, 7 * (second * FPS + i), axis=1).astype(np.uint8)
                image[:, (second * FPS + 3 * i) % SIZE[1] :][:, :20] += second % 190
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                container.mux(video.encode(frame))
            wave = 0.5 * np.sin(2 * np.pi * (200 + second % 4000) * time_s)
            sound = av.AudioFrame.from_ndarray(
                wave.astype(np.float32)[None], format="fltp", layout="mono"
            )
            sound.sample_rate = RATE_HZ
            container.mux(audio.encode(sound))
        for stream in (video, audio):
            container.mux(stream.encode())


def held_bytes(pid: int) -> int:
    """Resident memory of a process and of all that it began."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        began = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
    except OSError:
        return 0  # it has ended
    own = [x for x in status.splitlines() if x.startswith("VmRSS")]
    kib = int(own[0].split()[1]) if own else 0
    # Threads begin processes, too.
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        if task.parent.name != str(pid):
            try:
                began += " " + task.read_text(encoding="utf-8")
            except OSError:
                continue
    return 1024 * kib + sum(held_bytes(int(child)) for child in began.split())


def measured(command: list[str]) -> dict[str, float]:
    """Seconds and peak of a command.

    Raises:
        RuntimeError: it failed.
    """
    begun = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        said: list[bytes] = []
        reader = threading.Thread(target=lambda: said.extend(process.communicate()))
        reader.start()
        peak = 0
        while reader.is_alive():
            peak = max(peak, held_bytes(process.pid))
            time.sleep(LOOK_EVERY_S)
    if process.returncode:
        raise RuntimeError(said[1].decode(errors="replace"))
    return {"seconds": time.perf_counter() - begun, "peak_mib": peak / 2**20}


def main() -> None:
    """Print the table."""
    parser: argparse.ArgumentParser = arguments(__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="a trained model")
    parser.add_argument("--minutes", type=int, nargs="+", default=[2, 120])
    args = parser.parse_args()
    figures: dict[str, object] = {}
    for minutes in args.minutes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "videos").mkdir()
            write_video(folder / "videos" / "video.mp4", minutes)
            jobs = {
                "prepare": [
                    *("data_prep.prepare", str(folder / "videos"), "--size-px=256"),
                    *("--format=array_record", f"--out={folder / 'data'}"),
                ],
                "extract": [
                    *("visxp_jax.extract", f"--workdir={args.workdir}"),
                    *(f"--out={folder / 'features'}", str(folder / "videos")),
                ],
                "segment": [
                    "visxp_jax.production.segment",
                    *(f"--out={folder / 'folders'}", str(folder / "videos")),
                ],
            }
            for job, command in jobs.items():
                found = measured(command)
                figures[f"{job}, {minutes} min"] = found
                print(
                    f"{job:8} {minutes:4} min  peak {found['peak_mib']:7.0f} MiB  "
                    f"{found['seconds']:6.1f} s, "
                    f"{60 * minutes / found['seconds']:.0f} times realtime",
                    flush=True,
                )
    finish(args.out, "memory", figures)


if __name__ == "__main__":
    main()
