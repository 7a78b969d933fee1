"""The style of every figure, and how a figure is saved to a file or put in a page.

Figures are drawn through matplotlib's object interface in a fixed style and without dates, so the
same input gives the same bytes. Blue and vermilion are from Okabe and Ito's palette, safe for all
kinds of colour vision; vermilion is darkened enough for small print. Names and captions are drawn
literally, never parsed as mathematics.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import matplotlib.style
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from memfeat.errors import ConfigError
from memfeat.storage import write_atomically

FORMATS = ("png", "svg", "pdf")
INK, MUTED, RULE, PAPER = "#1c2126", "#5d6670", "#d5dae0", "#ffffff"
BLUE, VERMILION = "#0072b2", "#c84e00"
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    PAPER: "--paper",
    BLUE: "--blue",
    VERMILION: "--vermilion",
}
SMALL = 7.0  # points
LINE = 0.145  # inches per line of small print

_WARNING = re.compile(
    r"random weights|not from people|formula|simulat|shuffled|non.commercial|"
    r"^(partial|unfamiliar|extreme):",
    re.IGNORECASE,
)
_TWO_PATHS = re.compile(r'<g><path d="([^"]*)"([^/>]*)/></g><g><path d="([^"]*)"\2/></g>')
_MARKERS = re.compile(r'(<use [^>]*?( style="[^"]*")/>)(<use [^>]*?\2/>)+')
_PLACES = re.compile(r' (?:d|x|y|width|height|transform)="[^"]*"')
_DECIMALS = re.compile(r"(\d\.\d\d)\d+")  # of 1/72 inch
_MOST_HALVINGS = 10
_STYLE: dict[str, Any] = {
    "font.size": 9.0,
    "text.color": INK,
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 72.0,
    "figure.facecolor": PAPER,
    "image.composite_image": False,  # in an SVG or PDF it would be one image of 72 dpi
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "path.simplify": False,
    "savefig.dpi": 160.0,
    "svg.fonttype": "none",
    "xtick.color": MUTED,
    "xtick.labelsize": 8.0,
    "xtick.major.size": 3.0,
    "ytick.color": MUTED,
    "ytick.labelsize": 8.0,
    "ytick.major.size": 0.0,
}


@contextmanager
def style() -> Iterator[None]:
    """Use this module's style, whatever the user's own matplotlib settings."""
    with matplotlib.style.context(["default", _STYLE]):
        yield


def is_warning(line: str) -> bool:
    """Return whether a source line warns of random weights or of scores that are not people's."""
    return _WARNING.search(line) is not None


def picture_format(path: Path) -> str:
    """Return the picture format that a file's name asks for.

    Raises:
        ConfigError: the name ends in none of .png, .svg and .pdf.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        allowed = ", ".join(f".{name}" for name in FORMATS)
        raise ConfigError(f"cannot draw {path}: end its name in one of {allowed}")
    return suffix


def require_picture(path: Path) -> None:
    """Refuse a picture's path that cannot be written to, before anything is drawn.

    Raises:
        ConfigError: the name ends in none of .png, .svg and .pdf, or it is a folder's.
        OSError: its folder cannot be made.
    """
    picture_format(path)
    if path.is_dir():
        raise ConfigError(f"cannot draw {path}: it is a folder; name a file")
    path.parent.mkdir(parents=True, exist_ok=True)


def save(figure: Figure, output: Path | BinaryIO) -> None:
    """Write a figure to a file, in the format of its suffix, or as PNG to a stream.

    Raises:
        ConfigError: the file's name ends in none of .png, .svg and .pdf.
        OSError: the file cannot be written.
    """
    if isinstance(output, Path):
        write_atomically(output, _render(figure, picture_format(output)))
    else:
        output.write(_render(figure, "png"))


def inline_svg(figure: Figure, description: str, key: str) -> str:
    """Return a figure as an `<svg>` element for an HTML page.

    Its colours are the page's CSS variables (`VARIABLES`), so it follows the page's dark mode; its
    text stays text, in the page's font; `--width` is its natural width.

    Args:
        figure: one that this package drew.
        description: for screen readers.
        key: makes this figure's ids differ from those of the page's other figures.
    """
    svg = _render(figure, "svg", key).decode()
    view = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', svg)
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body).replace("xlink:href", "href")
    body = re.sub(r"font-family: [^;\"]*", "font-family: inherit", body)
    for colour, variable in VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    body = _compact(body)
    if view is None:
        raise RuntimeError("matplotlib wrote an SVG without a view box")
    return (
        f'<svg role="img" aria-label="{escape(description)}" {view[0]} '
        f'style="--width:{float(view[1]):.0f}px">{body}'
    )


def _compact(body: str) -> str:
    """Shorten an SVG without changing the picture: a page may hold hundreds of them."""
    body = re.sub(r"<!--.*?-->|\s*\n\s*", "", body, flags=re.DOTALL)
    body = _PLACES.sub(lambda each: _DECIMALS.sub(r"\1", each[0]), body)
    body = _MARKERS.sub(lambda run: f"<g{run[2]}>{run[0].replace(run[2], '')}</g>", body)
    for _ in range(_MOST_HALVINGS):  # bars of one colour become one path
        body = _TWO_PATHS.sub(r'<g><path d="\1\3"\2/></g>', body)
    return body


def drawable(text: str) -> str:
    """Replace characters that the font has no glyph for, such as Chinese, by empty squares."""
    glyphs = _glyphs()
    return "".join(letter if ord(letter) in glyphs else "\N{WHITE SQUARE}" for letter in text)


class SmallPrint(list[tuple[str, bool]]):
    """Source lines wrapped to a figure's width, each with whether it is a warning."""

    def __init__(self, sources: Sequence[str], width: int) -> None:
        super().__init__(
            (line, is_warning(source))
            for source in sources
            for line in textwrap.wrap(drawable(source), width)
        )

    @property
    def height(self) -> float:
        """Inches to leave for the lines at the lower edge."""
        return LINE * len(self) + 0.12 if self else 0.0

    def draw(self, figure: Figure, left: float = 0.12) -> None:
        """Draw the lines at the figure's lower edge, `left` inches in, warnings in vermilion."""
        width, height = figure.get_size_inches()
        for place, (line, warning) in enumerate(reversed(self)):
            figure.text(
                left / width,
                (0.09 + LINE * place) / height,
                line,
                color=VERMILION if warning else MUTED,
                fontsize=SMALL,
                fontweight="bold" if warning else "normal",
                parse_math=False,
            )


def _render(figure: Figure, picture: str, key: str = "") -> bytes:
    nothing: dict[str, dict[str, None]] = {
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
        "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    stream = BytesIO()
    with style(), matplotlib.rc_context({"svg.hashsalt": f"memfeat{key}"}):
        figure.savefig(stream, format=picture, metadata=nothing[picture])
    return stream.getvalue()


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())
