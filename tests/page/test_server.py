"""The served page without a browser: its answers, and what it refuses."""

import io
import multiprocessing
import socket
import subprocess
import sys
import time

import av
import numpy as np
import pytest
from PIL import Image

from tests.data_prep.pool_tasks import work
from tests.page.served import HOSTILE, NAMES, Client, serving
from tests.search.collection import colour
from tests.test_weights import saved
from tests.videos import level, write_video
from visxp_jax.errors import VisxpError
from visxp_jax.page import __main__ as page
from visxp_jax.page import server as server_module
from visxp_jax.page.clips import Clips
from visxp_jax.page.places import BUSY
from visxp_jax.search import __main__ as search
from visxp_jax.search import isolated
from visxp_jax.search.exact import Searcher
from visxp_jax.search.finder import Finder
from visxp_jax.search.store import Store


def by_path(client: Client) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for clip in client.search()["hits"]:
        found.setdefault(clip["name"], []).append(clip)
    return found


def test_what_is_alike_is_that_of_the_finder(client, made):
    finder = Finder(Searcher(Store(made / "index")), lambda what: pytest.fail(what))
    for by in ("sight", "sound"):
        path, row = str(made / "1.mov"), 4
        hits = finder.find(finder.vectors(row), by=by, row=row, k=60)
        query = finder.searcher.clip(row)
        found = client.search(like=query.path, at=query.start_s, by=by, every=1)
        assert [hit["row"] for hit in found["hits"]] == [hit.row for hit in hits]
        assert [hit["score"] for hit in found["hits"]] == [hit.score for hit in hits]
        once = client.search(like=query.path, at=query.start_s, by=by)["hits"]
        firsts = {hit.path: hit.row for hit in reversed(hits)}
        assert {hit["path"]: hit["row"] for hit in once} == firsts
    assert query.path == path
    across = client.search(like=path, at=1, by="sight", find="sound")["hits"]
    assert len(across) == 4  # the silent file is none
    assert all(0 <= hit["score"] <= 1 for hit in across)
    assert client.ask("/api/about").json["across"] == "probability"


def test_clips_to_begin_with_are_of_all_files_and_of_those_named(client, made):
    found = client.search()
    assert found["total"] == len(found["hits"]) == 15
    assert {clip["folder"] for clip in found["hits"]} == {str(made)}
    (name,) = {clip["name"] for clip in client.search(name="SILENT mp4")["hits"]}
    assert name == "silent.mp4"
    assert not by_path(client)["silent.mp4"][0]["heard"]
    assert client.search(name="no such")["hits"] == []
    assert client.search(**{"in": "sport"})["hits"] == []
    seconds = client.search(file=str(made / "0.mp4"))["hits"]
    assert [clip["start_s"] for clip in seconds] == [0, 1, 2]


def test_hostile_names_are_data_and_open_their_files(client):
    names = by_path(client)
    assert HOSTILE in names
    odd = next(name for name in names if name.startswith("caf"))
    assert odd == "caf\\xe9 \\n2.mp4"
    for name in (HOSTILE, odd):
        assert client.ask(f"/clip/{names[name][0]['row']}").status == 200
        path = names[name][0]["path"]
        assert client.search(like=path, at=1)["query"]["name"] == name
    page = client.ask(f"/hierarchy?row={names[HOSTILE][0]['row']}")
    assert page.status == 200
    assert b"<img src=x" not in page.data


@pytest.mark.parametrize("name", NAMES[:3])
def test_a_clip_plays_from_its_second_on(name, client):
    row = next(x["row"] for x in by_path(client)[name] if x["start_s"] == 1)
    answer = client.ask(f"/clip/{row}")
    assert answer.headers["Content-Type"] == "video/mp4"
    with av.open(io.BytesIO(answer.data)) as file:
        codecs = {stream.codec_context.name for stream in file.streams}
        pictures = [f.to_ndarray(format="rgb24") for f in file.decode(video=0)]
    assert codecs == {"h264", "aac"}
    assert len(pictures) == 20  # of the two seconds that are left
    wanted = colour(NAMES.index(name), 1)
    np.testing.assert_allclose(pictures[0].mean((0, 1)), wanted, atol=8)
    part = client.ask(f"/clip/{row}", Range="bytes=4-7")
    assert (part.status, part.data) == (206, b"ftyp")


def test_the_original_may_be_gone_or_replaced(tmp_path, made):
    (hit,) = [Searcher(Store(made / "index")).clip(1)]
    clips = Clips(tmp_path, server_module.threading.Semaphore(1))
    with pytest.raises(ValueError, match="no longer where it was indexed"):
        clips.mp4(hit._replace(path=str(tmp_path / "gone.mp4")))
    (tmp_path / "bad.mp4").write_bytes(b"no video any more")
    with pytest.raises(ValueError, match="not a readable media file"):
        clips.mp4(hit._replace(path=str(tmp_path / "bad.mp4")))
    # Times are those of the pictures, whatever the file's clock says.
    late = write_video(tmp_path / "late.ts", start_s=40.0, seconds=6)
    data = clips.mp4(hit._replace(path=str(late), start_s=2.0, end_s=3.0))
    late.unlink()
    late.touch()
    assert clips.mp4(hit._replace(path=str(late), start_s=2.0, end_s=3.0)) is data
    with av.open(io.BytesIO(data)) as file:
        first = next(file.decode(video=0)).to_ndarray(format="gray")
    assert abs(first.mean() - level(2)) < 8
    shot = {"shot_start_s": 1.0, "shot_end_s": 2.5}
    long = write_video(tmp_path / "long.mp4", seconds=6)
    data = clips.mp4(hit._replace(path=str(long), **shot))
    with av.open(io.BytesIO(data)) as file:
        assert sum(1 for _ in file.decode(video=0)) == 15
    assert not list(tmp_path.glob("?" * 16 + ".mp4"))


@pytest.mark.parametrize(
    "path",
    [
        *("/clip/15", "/clip/-1", "/clip/1e0", "/clip/", "/clip/0/1", "/clip/%C2%B2"),
        *("/thumbnail/99999999999", "/thumbnail/..%2f0", "/hierarchy?row=15"),
        *("/hierarchy", "/../../../etc/passwd", "/clip/../../etc/passwd"),
        *("//etc/passwd", "//[", "/clip/%2Fetc%2Fpasswd", "/search.js", "/index.json"),
        *("/api", "/api/search/1"),
        *("/api/search?like=/etc/passwd", "/api/search?file=/etc/passwd"),
        "/api/search?upload=nobody",
    ],
)
def test_nothing_else_is_there(path, client):
    answer = client.ask(path)
    assert answer.status == 404
    assert set(answer.json) == {"error"}
    assert b"root:" not in answer.data


@pytest.mark.parametrize(
    "asked",
    [
        "at=x",
        "at=-1",
        "at=nan",
        "by=smell",
        "find=x",
        "others=inf",
        "name=" + 5000 * "a",
    ],
)
def test_nonsense_is_one_line(asked, client, made):
    like = "" if asked.startswith(("others", "name")) else f"like={made}/0.mp4&"
    answer = client.ask(f"/api/search?{like}{asked}")
    assert answer.status == 400
    assert "\n" not in answer.json["error"]


def test_other_sites_and_other_names_are_refused(client):
    local = f"localhost:{client.port}"
    for host in (local, "127.0.0.1", f"[::1]:{client.port}"):
        assert client.ask("/api/about", Host=host).status == 200
    for host in (
        "evil.example",
        f"evil.example:{client.port}",
        "127.0.0.1.evil",
        "",
        "[",
    ):
        assert client.ask("/", Host=host).status == 403
    site = {"Sec_Fetch_Site": "cross-site"}
    assert client.ask("/", **site).status == 200  # a link to it
    for path in ("/api/search", "/thumbnail/0", "/clip/0", "/hierarchy?row=0"):
        assert client.ask(path, **site).status == 403
    ours = client.url.rstrip("/")
    for headers, status in (
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": f"http://localhost:{client.port + 1}"}, 403),
        ({"Origin": ours, **site}, 403),
        ({"Origin": ours, "Sec_Fetch_Site": "same-site"}, 403),
        ({"Origin": ours, "Sec_Fetch_Site": "same-origin"}, 400),  # not a picture
    ):
        path = "/api/upload?name=a.png"
        answer = client.ask(path, method="POST", body=b"x", **headers)
        assert answer.status == status


def test_on_a_network_it_answers_to_addresses_and_its_own_names(made, tmp_path):
    with serving(made / "index", None, tmp_path, host="0.0.0.0") as client:
        own = socket.gethostname().upper()
        for host in ("192.0.2.7:8000", "[2001:db8::1]:8000", "localhost", f"{own}:80"):
            assert client.ask("/api/about", Host=host).status == 200
        for host in ("evil.example", f"evil.{own}", "192.0.2.7.evil.example", ""):
            answer = client.ask("/", Host=host)
            assert answer.status == 403
            assert "--host=NAME" in answer.json["error"]


def test_more_at_once_than_there_is_place_for_is_told_to_come_again(
    made, tmp_path, monkeypatch
):
    monkeypatch.setattr(server_module, "MAX_ARRIVING", 1)
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 3)
    large = tmp_path / "large.wav"  # more than what is on its way at once
    large.write_bytes(bytes(32 * 2**20))
    with serving(made / "index", made / "run", tmp_path) as client:
        address = ("127.0.0.1", client.port)
        with socket.create_connection(address) as first:
            first.sendall(
                b"POST /api/upload?name=a.png HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Length: 1000\r\n\r\nabc"
            )
            while not list(tmp_path.glob("?" * 16 + ".png")):
                time.sleep(0.01)
            answer = client.upload(large)
            assert (answer.status, answer.json) == (503, {"error": BUSY})
            assert len(list(tmp_path.glob("?" * 16 + ".*"))) == 1
            with (
                socket.create_connection(address),
                socket.create_connection(address),
            ):
                answer = client.ask("/api/about")
                assert (answer.status, answer.json) == (503, {"error": BUSY})
        for _ in range(100):  # until it has noticed that they hung up
            answer = client.upload(large)
            if answer.status != 503:
                break
            time.sleep(0.05)
        assert "not a readable media file" in answer.json["error"]


def test_one_path_in_two_collections_is_each_in_its_own(made, tmp_path):
    index, path = tmp_path / "index", str(made / "1.mov")
    features = [str(x) for x in sorted((made / "features").glob("[!_]*.parquet"))]
    for name in ("a", "b"):
        assert search.main(["add", str(index), *features, f"--collection={name}"]) == 0
    with serving(index, None, tmp_path) as client:
        rows = {}
        for name in ("a", "b"):
            whence = {"from": name}
            found = client.search(like=path, at=1, by="sight", every=1, **whence)
            query = found["query"]
            assert (query["path"], query["key"], query["in"]) == (path, name, name)
            assert query["row"] not in {hit["row"] for hit in found["hits"]}
            seconds = client.search(file=path, **whence)["hits"]
            assert {clip["key"] for clip in seconds} == {name}
            assert client.ask(f"/clip/{query['row']}").status == 200
            rows[name] = query["row"]
            tree = client.ask(f"/hierarchy?row={query['row']}").data.decode()
            assert f"from={name}" in tree
        assert rows["a"] != rows["b"]
        hits = client.search(like=path, at=1, every=1, **{"from": "a"})["hits"]
        assert {hit["key"] for hit in hits} == {"a", "b"}
        assert (path, 1.0) not in {(hit["path"], hit["start_s"]) for hit in hits}
        gone = client.ask(f"/api/search?like={path}&at=1&from=c")
        assert gone.status == 404


def test_nothing_runs_in_the_page_but_its_own_scripts(client):
    for path in ("/", "/hierarchy?row=0", "/api/about", "/thumbnail/0"):
        headers = client.ask(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_files_from_elsewhere_are_searched_by(client, made, tmp_path):
    image = Image.new("RGB", (64, 48), colour(2, 0))
    image.save(tmp_path / "a.png")
    answer = client.upload(tmp_path / "a.png")
    assert answer.status == 200
    assert (answer.json["seen"], answer.json["heard"]) == (True, False)
    found = client.search(upload=answer.json["upload"])
    assert found["hits"][0]["name"] == HOSTILE
    assert found["query"]["name"] == "a.png"
    video = made / "0.mp4"
    answer = client.upload(video, at=2.5, Origin=client.url.rstrip("/"))
    assert (answer.json["seen"], answer.json["heard"]) == (True, True)
    first = client.search(upload=answer.json["upload"], by="sound")["hits"][0]
    assert first["start_s"] == 2
    assert first["score"] > 0.99


def test_files_that_cannot_be_used_are_one_line(client, tmp_path, monkeypatch):
    for name, at, line in (
        ("bad.png", 0, "not a readable picture"),
        ("bad.mp4", 0, "not a readable media file"),
        ("bad.mp4/../../../x.wav", 0, "not a readable media file"),
        ("playlist.m3u8", 0, "not a readable media file"),
        ("none", 0, "not a readable media file"),
        ("short.mp4", 7, "no whole second at 7 s"),
    ):
        data = b"#EXTM3U\n/etc/passwd\n"
        if name == "short.mp4":
            data = write_video(tmp_path / name, seconds=2).read_bytes()
        path = f"/api/upload?name={name}&at={at}"
        answer = client.ask(path, method="POST", body=data)
        assert answer.status == 400
        assert line in answer.json["error"]
        assert "\n" not in answer.json["error"]
        assert str(tmp_path.parent) not in answer.json["error"]
    empty = client.ask("/api/upload?name=a.png", method="POST", body=b"")
    assert "an empty file" in empty.json["error"]
    monkeypatch.setattr(server_module, "MAX_UPLOAD_BYTES", 2**20)
    large = {"Content_Length": str(2**20 + 1)}
    answer = client.ask("/api/upload?name=a.png", method="POST", **large)
    assert answer.status == 413
    assert "at most 1 MB" in answer.json["error"]


def test_a_file_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(isolated, "LIMIT_S", 1.0)
    before = set(multiprocessing.active_children())  # of joblib, from other tests
    with pytest.raises(VisxpError, match="takes more than 1 s to read; take an earl"):
        isolated.isolated(work, ("slow", 0))  # it would be done in 1.8 s
    assert set(multiprocessing.active_children()) <= before


def test_who_hangs_up_leaves_nothing(client, made):
    def left(number: int) -> bool:
        for _ in range(200):
            if len(list((made / "scratch").iterdir())) == number:
                return True
            time.sleep(0.05)
        return False

    with socket.create_connection(("127.0.0.1", client.port)) as half:
        half.sendall(
            b"POST /api/upload?name=a.png HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Length: 1000\r\n\r\nabc"
        )
        assert left(1)
    assert left(0)
    assert client.ask("/api/about").status == 200


def test_what_is_added_appears_and_old_numbers_are_refused(made, tmp_path):
    index = tmp_path / "index"
    features = sorted((made / "features").glob("[!_]*.parquet"))
    assert search.main(["add", str(index), *map(str, features[:2])]) == 0
    with serving(index, None, tmp_path) as client:
        before = client.ask("/api/about").json
        assert (before["files"], before["model"]) == (2, False)
        assert before["ways"] == [["sight", "sight"], ["sound", "sound"]]
        assert before["across"] is None
        stamp = before["index"]
        assert client.ask(f"/thumbnail/0?index={stamp}").status == 200
        more = [str(path) for path in features[2:]]
        assert search.main(["add", str(index), *more, "--collection=b"]) == 0
        after = client.ask("/api/about").json
        assert (after["files"], after["clips"]) == (5, 15)
        assert [x["name"] for x in after["collections"]] == ["(no collection)", "b"]
        assert len(client.search(**{"in": "b"})["hits"]) == 9
        answer = client.ask(f"/clip/0?index={stamp}")
        assert answer.status == 409
        assert "has changed" in answer.json["error"]
        hit = client.search()["hits"][0]
        asked = f"like={hit['path']}&at=0&by=sight&find=sound"
        answer = client.ask(f"/api/search?{asked}")
        assert "needs the model" in answer.json["error"]
        assert client.upload(made / "0.mp4").status == 400
        (index / "index.json").write_text("{")
        assert len(client.search()["hits"]) == 15  # as it was before


def test_mistakes_at_the_start_are_one_line(made, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    saved(tmp_path / "other", seed=1)
    index = str(made / "index")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for args, line in (
            ([index, f"--port={port}"], f"--port must be free, but {port} is taken"),
            ([index, "--port=70000"], "--port must be from 0 to 65535"),
            ([index, "--host=256.0.0.1"], "--host must be a name or address"),
            ([str(tmp_path / "none")], "must be an index with clips, got none"),
            ([index, f"--workdir={tmp_path / 'none'}"], "must hold a trained model"),
            ([index, f"--workdir={tmp_path / 'other'}"], "must have the weights that"),
        ):
            assert page.main(args) == 2
            told = capsys.readouterr().err
            assert line in told
            assert told.count("\n") == 1


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_the_command_ends_quietly(how, made):
    import signal

    command = [sys.executable, "-m", "visxp_jax.page", str(made / "index"), "--port=0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(getattr(signal, how))
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
