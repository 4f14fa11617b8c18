"""Text from outside as safe HTML, and the templates that it goes into."""

import html
import re
from collections.abc import Mapping
from importlib import resources


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


def resource(name: str) -> str:
    """Text of a file of this package."""
    return resources.files("visxp_jax.report").joinpath(name).read_text("utf-8")


def filled(name: str, **parts: str) -> str:
    """A template of this package with its {{names}} replaced.

    In one pass: text that happens to look like a name in braces stays text.
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], resource(name))


def head_html(title: str) -> str:
    """What all pages begin with: above all that they ask for nothing outside."""
    return filled("head.html", title=text(title), style=resource("style.css"))


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
