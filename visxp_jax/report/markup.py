"""Text from outside as safe HTML."""

import html


def text(value: str) -> str:
    """Escaped for HTML; control and direction characters are shown as escapes."""
    shown = (c if c.isprintable() else _visible(c) for c in value)
    return html.escape("".join(shown))


def _visible(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def none(reason: str) -> str:
    """A line in place of a part that is empty."""
    return f'<p class="none">{text(reason)}</p>'
