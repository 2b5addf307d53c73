"""HTML pages: a template, and values by keyword.

A page extends `page.html.j2`, which brings the style sheet. What a template prints is escaped, and a name that it
does not get is an error, so no placeholder ever reaches a reader.
"""

import math
from typing import Any

from storm_hf.optional import require


_SECONDS_PER_MINUTE = 60
_SPACE = "\N{NO-BREAK SPACE}"  # between a number and its unit


def render_page(package: str, template: str, **values: object) -> str:
    """Fill in a template.

    Args:
        package (`str`):
            Package whose folder `templates` holds the template, such as `"storm_hf.demo"`.
        template (`str`):
            File name in that folder. It may extend or include files of this folder and of `reporting/templates`.
        **values (`object`):
            What the template calls by name. Strings are escaped unless they are `markupsafe.Markup`.

    Returns:
        `str`: The HTML.

    Raises:
        DependencyError: If jinja2 is not installed.
    """
    return _environment(package).get_template(template).render(**values)


def percent(share: float) -> str:
    """Write a share as a percentage that never rounds to all or nothing: 0.9996 is `99.9%`, not `100%`."""
    if share in (0, 1):
        return f"{share:.0%}"
    shown = min(max(round(100 * share, 1), 0.1), 99.9)
    return f"{shown:g}%"


def duration(seconds: float) -> str:
    """Format a duration: `12 ms`, `4.2 s`, `48 s`, `8 min 12 s`."""
    if seconds < 0.9995:
        return f"{1000 * seconds:.3g}{_SPACE}ms"
    if seconds < _SECONDS_PER_MINUTE:
        return f"{seconds:.{1 if seconds < 10 else 0}f}{_SPACE}s"
    minutes, rest = divmod(round(seconds), _SECONDS_PER_MINUTE)
    return f"{minutes}{_SPACE}min" + (f"{_SPACE}{rest}{_SPACE}s" if rest else "")


def count(number: float) -> str:
    """Write a number of things with three digits that matter: `512`, `12,400`, `0.92 million`."""
    if number >= 100_000:
        return f"{number / 1e6:.{2 if number < 1e7 else 0}f}{_SPACE}million"
    return f"{number:,.0f}" if math.isclose(number, round(number)) else f"{number:,.1f}"


def _environment(package: str) -> Any:  # jinja2 is optional, so its types are not known here
    jinja2 = require("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("storm_hf.reporting")]),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration, "count": count}
    return environment
