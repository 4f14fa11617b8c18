"""Text from outside as safe HTML, and the templates that it goes into."""

import html
import re
from collections.abc import Mapping
from importlib import resources

# Of a page that holds all that it needs: what is said, and what it may load.
HELD = "This page holds all that it shows, and asks no network for anything."
OFFLINE = (
    "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)


def text(value: str) -> str:
    """Escaped for HTML; control and direction characters are shown as escapes."""
    return html.escape(shown(value))


def shown(value: str) -> str:
    """The same without HTML's escapes, for text that a script shows."""
    return "".join(c if c.isprintable() else _visible(c) for c in value)


def _visible(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def none(reason: str) -> str:
    """A line in place of a part that is empty."""
    return f'<p class="none">{text(reason)}</p>'


def resource(name: str, package: str = "visxp_jax.report") -> str:
    """Text of a file of a package."""
    return resources.files(package).joinpath(name).read_text("utf-8")


def filled(name: str, /, package: str = "visxp_jax.report", **parts: str) -> str:
    """A template of a package with its {{names}} replaced.

    In one pass: text that happens to look like a name in braces stays text.
    """
    template = resource(name, package)
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def head(title: str, *, style: str = "", policy: str = OFFLINE) -> str:
    """What all pages begin with: above all that they ask for nothing outside.

    Args:
        title: Of the page.
        style: Added to the common one.
        policy: What it may load.
    """
    style = resource("style.css") + style
    return filled("head.html", title=text(title), style=style, policy=policy)


def made_html(summary: Mapping[str, str]) -> str:
    """What made a page, by name."""
    rows = "".join(map(_made, summary.items()))
    return f'<dl class="made">{rows}</dl>' if rows else ""


def _made(item: tuple[str, str]) -> str:
    name, value = item
    if len(value) <= 48:
        return f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>"
    # Commands break between their words, not at the hyphens of an option.
    words = " ".join(f"<span>{text(word)}</span>" for word in value.split(" "))
    return f'<div class="wide"><dt>{text(name)}</dt><dd>{words}</dd></div>'
