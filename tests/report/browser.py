"""Pages in headless Chromium, where there is one."""

import base64
import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
    *("disable-sync", "disable-background-networking", "disable-component-update"),
    *("dump-dom", "autoplay-policy=no-user-gesture-required"),
    *("virtual-time-budget=60000", "window-size=1280,1200"),
)
# Chromium draws no frames while it dumps a page.
FRAMES = """<script>
window.requestAnimationFrame = (f) => setTimeout(() => f(performance.now()), 16);
window.cancelAnimationFrame = clearTimeout;
</script>"""
# A page's time runs as fast as it can, that of decoders does not: wait for them.
UNTIL = """
const until = async (ready) => {
  for (let tries = 0; tries < 400 && !ready(); tries++) {
    for (let i = 0, x = 0; i < 2e7; i++) x += i;
    await new Promise((done) => setTimeout(done, 1));
  }
};
"""
CODES = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}
needs_browser = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="needs chromium"
)


def seen(page: str, actions: str, tmp_path: Path, fragment: str = "") -> dict:
    """What the page's title says after a script that fills `seen` has run in it."""
    script = (
        f"<script>(async () => {{ const seen = {{}}; {UNTIL} "
        f"try {{ {actions} }} catch (error)"
        " { seen.error = String(error.stack); } "
        'document.title = "seen " + JSON.stringify(seen); })();</script></body>'
    )
    path = tmp_path / "page.html"
    page = page.replace("<head>", f"<head>{FRAMES}").replace("</body>", script)
    path.write_text(page, encoding="utf-8")
    command = ["chromium", *(f"--{flag}" for flag in FLAGS)]
    command += [f"--user-data-dir={tmp_path / 'profile'}", path.as_uri() + fragment]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = re.search(r"<title>seen (.*?)</title>", done.stdout)
    assert found is not None, done.stderr[-2000:]
    return json.loads(
        found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    )


class Browser:
    """Chromium at a served page, driven as by hands: DevTools' protocol over pipes."""

    def __init__(self, profile: Path, *, width: int = 1280, height: int = 1000) -> None:
        theirs, self._to = os.pipe()
        self._from, their_answers = os.pipe()
        flags = [
            f for f in FLAGS if not f.startswith(("dump-dom", "virtual", "window"))
        ]
        flags += ["remote-debugging-pipe", f"user-data-dir={profile}"]
        flags += [f"window-size={width},{height}", "hide-scrollbars"]
        script = "import os, sys; a, b, *command = sys.argv[1:]; "  # reads 3, writes 4
        script += (
            "os.dup2(int(a), 3); os.dup2(int(b), 4); os.execvp('chromium', command)"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, str(theirs), str(their_answers), "chromium"]
            + [f"--{flag}" for flag in flags],
            pass_fds=(theirs, their_answers),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(their_answers)
        self._rest, self._number, self._session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")

    def call(self, method: str, **params) -> dict:
        """The result of a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _message(self) -> dict:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], 60)
            assert ready, "the browser does not answer"
            self._rest += os.read(self._from, 2**20)
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def run(self, script: str):
        """What the body of an async function returns in the page."""
        expression = f"(async () => {{ {script} }})()"
        how = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        found = self.call("Runtime.evaluate", expression=expression, **how)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str, seconds: float = 10.0):
        """What an expression is in the page, once it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            # A page that is just being left answers nothing.
            with suppress(AssertionError):
                if found := self.run(f"return {condition};"):
                    return found
            time.sleep(0.05)
        raise AssertionError(f"never true: {condition}")

    def choose(self, selector: str, *files: Path) -> None:
        """Give files to an input."""
        document = self.call("DOM.getDocument")["root"]["nodeId"]
        found = self.call("DOM.querySelector", nodeId=document, selector=selector)
        paths = [str(file) for file in files]
        self.call("DOM.setFileInputFiles", nodeId=found["nodeId"], files=paths)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            how = {"key": key, "code": key, "windowsVirtualKeyCode": CODES[key]}
            how |= {"text": "\r"} if key == "Enter" else {}
            self.call("Input.dispatchKeyEvent", type=kind, **how)

    def picture(self, path: Path) -> None:
        """What is to be seen, as PNG."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
