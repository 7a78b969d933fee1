"""The page as HTML: the template filled in, with numbers rounded for people, exact for machines."""

from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

import memfeat
from memfeat.errors import counted
from memfeat.figures.style import is_warning
from memfeat.manifest import Split
from memfeat.report import choices, repeating
from memfeat.report.exploring import script_hash
from memfeat.report.page import Page, page_of
from memfeat.report.scatter import EDGES
from memfeat.report.showing import Timelines
from memfeat.storage import write_atomically

_MINUS = "\N{MINUS SIGN}"


def write_report(
    folder: Path,
    output: Path | None = None,
    split: Split | None = None,
    timelines: Timelines | None = None,
) -> Path:
    """Write one self-contained HTML page.

    Args:
        folder: of a run, a grid or a transfer.
        output: the page; by default `report.html` in the folder.
        split: of a grid, which split's table; not needed where there is one.
        timelines: draws those of single videos; without it the page has none.

    Returns:
        Where the page is.

    Raises:
        RunError: the folder is none of these, or incomplete or damaged.
        OSError: the page cannot be written.
    """
    output = folder / "report.html" if output is None else output
    write_atomically(output, _render(page_of(folder, split, timelines)).encode())
    return output


def render(template: str, sources: Sequence[str], **values: Any) -> str:
    """Fill a template in; `sources` say what the results are based on, warnings among them."""
    environment = Environment(
        loader=PackageLoader("memfeat"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template(template).render(
        warnings=[line for line in sources if is_warning(line)],
        other_sources=[line for line in sources if not is_warning(line)],
        version=memfeat.__version__,
        **{"script_hash": "", **values},
    )


def _render(page: Page) -> str:
    script = (files("memfeat") / "templates" / "page.js").read_text(encoding="utf-8")
    return render(
        "report.html.j2",
        page.sources,
        page=page,
        plot_edges=EDGES,
        script=Markup(script),  # noqa: S704  our own
        script_hash=script_hash(script),
        commands=repeating.commands(page.runs),
        option_files=repeating.option_files(page.runs),
        ours=choices.our_choices(page.runs),
        settings=choices.training_settings(page.runs),
        features=choices.feature_settings(page.runs),
    )


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> Markup:
    """Return a number rounded to `digits`, with its exact value in the element's attribute."""
    if value is None:
        return Markup('<span class="none">undefined</span>')
    shown = f"{value:{'+' if sign else ''}.{digits}f}".replace("-", _MINUS)
    return Markup('<data value="{}">{}</data>').format(repr(value), shown)


def interval(bounds: tuple[float, float] | None, digits: int = 3, *, sign: bool = False) -> Markup:
    """Return an interval's two numbers in brackets; nothing for None."""
    if bounds is None:
        return Markup("")
    low, high = (number(bound, digits, sign=sign) for bound in bounds)
    return Markup("[{}, {}]").format(low, high)


def spread(value: float | None, digits: int = 3) -> Markup:
    """Return the plus-minus part of a mean; nothing for None."""
    return Markup("") if value is None else Markup("± {}").format(number(value, digits))


def count(value: int | None) -> Markup:
    """Return a whole number with thin spaces between thousands; a dash for None."""
    if value is None:
        return Markup("&ndash;")
    return Markup('<data value="{}">{}</data>').format(value, f"{value:,}".replace(",", "\u202f"))


def duration(seconds: float | None) -> Markup:
    """Return a duration in its natural unit; a dash for None."""
    if seconds is None:
        return Markup("&ndash;")
    if seconds < 60:
        shown = f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    elif seconds < 3600:
        shown = f"{seconds / 60:.1f} min"
    else:
        shown = f"{seconds / 3600:.1f} h"
    return Markup('<data value="{}">{}</data>').format(repr(seconds), shown)


def breakable(text: str) -> Markup:
    """Return text that may break after `+`, `-`, `_` and `/`, where long names want to."""
    safe = str(escape(text))
    for mark in "+-_/":
        safe = safe.replace(mark, f"{mark}<wbr>")
    return Markup(safe)  # noqa: S704  escaped above


FILTERS: dict[str, Callable[..., Any]] = {
    "number": number,
    "interval": interval,
    "spread": spread,
    "count": count,
    "counted": counted,
    "duration": duration,
    "breakable": breakable,
}
