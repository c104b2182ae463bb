"""An extension of griffe, which reads the docstrings for the API pages.

It reads Google's style strictly; ours differs in two points. An example is headed "Example:" and
stands after a blank line, so that it is readable as text, and Keras' own sections, "Input shape:"
and the like, are no sections to it.
"""

import re

import griffe

# The sections that only Keras has, with their indented lines.
_KERAS = re.compile(
    r"^(Input shape|Output shape|Call arguments|Returns \(of a call\)|Reference):\n"
    r"((?: +\S.*(?:\n|$))+)",
    re.M,
)
_EXAMPLE = re.compile(r"^Example:\n\n((?:.*\S.*(?:\n|$))+)", re.M)
_URL = re.compile(r"https://\S+[\w/]")


def rewritten(text: str) -> str:
    """Returns a docstring in which griffe finds all sections."""
    text = _EXAMPLE.sub(lambda found: "Examples:\n" + indented(found[1]), text)
    return _KERAS.sub(lambda found: f"**{found[1]}:**\n\n{as_markdown(found[2])}\n", text)


def indented(lines):
    return re.sub(r"^", "    ", lines.rstrip("\n"), flags=re.M) + "\n"


def as_markdown(lines):
    """Arguments become a list, other text a paragraph."""
    lines = [line.strip() for line in lines.splitlines()]
    lines = [re.sub(r"^(\w+): ", r"- `\1`: ", line) for line in lines]
    return _URL.sub(r"<\g<0>>", "\n".join(lines))


class Docstrings(griffe.Extension):
    """Rewrites each docstring as it is read."""

    def on_instance(self, *, obj, **kwargs):
        """Called for each module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = rewritten(obj.docstring.value)
