"""Progress: where stderr is no terminal, lines and nothing that moves a cursor."""

import io
import os
import re
import sys
import termios

import pytest

from visxp_jax import progress


def run(*, shown: bool = True) -> None:
    with progress.progress_bar(shown=shown, total=3, desc="read", unit="file") as bar:
        for _ in range(3):
            bar.update()


def test_a_log_gets_a_line_with_count_and_rate_each_time(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress, "LOG_EVERY_S", 1e-9)
    run()
    assert "\r" not in log.getvalue()
    lines = log.getvalue().splitlines()
    counts = dict.fromkeys(line.split(" [")[0] for line in lines)
    assert list(counts) == ["read: 1/3 file", "read: 2/3 file", "read: 3/3 file"]
    assert all("file/s" in line for line in lines)


def test_short_work_leaves_nothing_in_a_log(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    run()
    assert log.getvalue() == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    leader, follower = os.openpty()
    termios.tcsetwinsize(follower, (24, 80))
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        run()
        terminal.flush()
        drawn = ""
        while "3/3" not in drawn:  # it comes in pieces; a bar without hangs here
            drawn += os.read(leader, 10_000).decode()
    os.close(leader)
    assert "\r" in drawn


@pytest.mark.parametrize("terminal", [True, False])
def test_not_shown_is_silent(monkeypatch, terminal):
    log = io.StringIO()
    monkeypatch.setattr(log, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress, "LOG_EVERY_S", 1e-9)
    run(shown=False)
    assert log.getvalue() == ""


def test_preparation_tells_of_both_its_stages(demo_videos, tmp_path, monkeypatch):
    from data_prep.prepare import prepare

    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress, "LOG_EVERY_S", 1e-9)
    prepare(demo_videos, tmp_path / "data", spectrogram="mel", size_px=16)
    lines = log.getvalue().splitlines()
    done = [line for line in lines if line.startswith("prepare: 25/25 file")][-1]
    assert re.search(r"\d+ clips, \d+ clips/s", done)
    for split in ("train", "validation", "test"):
        assert any(line.startswith(f"{split} shards: ") for line in lines), split
