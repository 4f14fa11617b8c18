"""All commands tell of mistakes in one line, and end alike."""

import os
import signal
import sys
from pathlib import Path

import pytest

from visxp_jax.command_line import Parser, command, without
from visxp_jax.errors import VisxpError


def parser() -> Parser:
    whole = Parser("visxp it", "What it is for.")
    verbs = whole.add_subparsers(dest="verb", required=True)
    find = verbs.add_parser("find")
    find.add_argument("files", nargs="+")
    find.add_argument("--out", required=True)
    find.add_argument("--at", type=float)
    find.add_argument("-k", type=int)
    return whole


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (
            "find -a.mp4 --out=x",
            "no option -a.mp4; a file of that name is written ./-a",
        ),
        ("find b.mp4 -a.mp4 --out=x", "there is no option -a.mp4; a file of that name"),
        ("find b.mp4 --out -a=b.mp4", "there is no option -a=b.mp4; a file of that"),
        ("find -king.mp4 --out=x", "there is no option -king.mp4; a file of that name"),
        ("find --there.mp4 --out=x", "no option --there.mp4; a file of that name"),
        (
            "find b.mp4 --ouch=x",
            "there is no option --ouch=x; see visxp it find --help",
        ),
        ("find -\n.mp4 --out=x", r"there is no option -\n.mp4; a file of that name"),
        ("find -k5 --ou=x --at -1", "the following arguments are required: files"),
        ("find b.mp4 -kx --out=x", "argument -k: invalid int value: 'x'"),
        ("fnd b.mp4 --out=x", "argument verb: invalid choice: 'fnd'"),
        ("", "the following arguments are required: verb; see visxp it --help"),
    ],
)
def test_a_mistake_in_the_arguments_is_one_line(
    args, line, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    for name in ("-king.mp4", "--there.mp4"):
        (tmp_path / name).touch()
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(args.split(" ") if args else [])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert line in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "files"),
    [
        ("find ./-a.mp4 --out=x", ["./-a.mp4"]),
        ("find --out=x -- -a.mp4", ["-a.mp4"]),
        ("find -5 --out=x --at -1 -k5", ["-5"]),
    ],
)
def test_what_is_no_mistake_passes(args, files):
    assert parser().parse_args(args.split(" ")).files == files


def test_help_shows_usage_and_the_description_as_it_is(capsys):
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith("usage: visxp it [-h]")
    assert "\nWhat it is for.\n" in told


def wrong() -> None:
    raise VisxpError("x must be 1, got 2.")


@pytest.mark.parametrize(
    ("act", "code", "told"),
    [
        (lambda: None, 0, ""),
        (lambda: 1, 1, ""),
        (wrong, 2, "error: x must be 1, got 2.\n"),
        (lambda: signal.raise_signal(signal.SIGINT), 130, "stopped; all is kept.\n"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 130, "stopped; all is kept.\n"),
    ],
)
def test_a_command_ends_with_its_code_and_one_line(act, code, told, capsys):
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert command("stopped; all is kept.")(act)() == code
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == told


def test_what_made_an_output_does_not_list_all_inputs(monkeypatch):
    inputs = [f"folders/{i}" for i in range(100)]
    command = ["visxp folders", "--out", "features", *inputs, "--config=a.yml"]
    monkeypatch.setattr(sys, "argv", command)
    kept = ["visxp folders", "--out", "features", "--config=a.yml"]
    assert without([Path(name) for name in inputs]) == kept
