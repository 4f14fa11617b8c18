"""The text of the page, and what it may load."""

import base64
import hashlib
import json
import re

from visxp_jax.report.markup import HELD, OFFLINE, filled, head, resource, text

PACKAGE = "visxp_jax.page"


# Of the served page; a header says which scripts and styles it is about.
SERVED = (
    "default-src 'none'; connect-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)


def served_page(title: str) -> str:
    """The page that asks the server."""
    return _page(title, "served.js", SERVED)


def offline_page(title: str, data: object, sounds: str) -> str:
    """The page that holds all that it needs.

    Args:
        title: Above it.
        data: JSON values for its script.
        sounds: HTML that holds them.
    """
    # Nothing in it can close the script element.
    inert = json.dumps(data, separators=(",", ":"), allow_nan=False)
    inert = inert.replace("&", "\\u0026").replace("<", "\\u003c")
    held = f"<footer>{HELD}</footer>"
    held += f'<script type="application/json" id="page-data">{inert}</script>{sounds}'
    return _page(title, "offline.js", OFFLINE, held=held)


def strict(page: str, policy: str) -> str:
    """A policy by which nothing runs in a page but the scripts it was made with.

    Text from outside is escaped in it, so that the elements are ours.
    """
    for kind, element in (("script-src", "script"), ("style-src", "style")):
        inside = re.findall(f"<{element}>(.*?)</{element}>", page, re.DOTALL)
        hashes = (hashlib.sha256(each.encode()).digest() for each in inside)
        known = " ".join(f"'sha256-{base64.b64encode(x).decode()}'" for x in hashes)
        policy = policy.replace(f"{kind} 'unsafe-inline'", f"{kind} {known}")
    return f"{policy}; frame-ancestors 'none'"


def _page(title: str, source: str, policy: str, *, held: str = "") -> str:
    scripts = [resource("lists.js"), *([resource("player.js")] if held else [])]
    scripts += [resource(name, PACKAGE) for name in (source, "search.js")]
    return filled(
        "search.html",
        PACKAGE,
        head=head(title, style=resource("search.css", PACKAGE), policy=policy),
        title=text(title),
        held=held,
        scripts="".join(f"<script>{script}</script>" for script in scripts),
    )
