"""Pages in headless Chromium, where there is one."""

import json
import re
import shutil
import subprocess
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
