"""Text from outside as safe HTML, and the templates that it goes into."""

import html
import re
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
