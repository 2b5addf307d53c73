import xml.etree.ElementTree as ElementTree

import pytest

from storm_hf.errors import DatasetError
from storm_hf.reporting import Bar, Line, Mark, bar_chart, line_chart


SVG = "{http://www.w3.org/2000/svg}"
CHANCE = Mark(0.25, "chance 25%")


def bars(*values: float, **options: object) -> ElementTree.Element:
    drawn = [Bar(f"arm {index}", value, f"{value:.0%}") for index, value in enumerate(values)]
    return ElementTree.fromstring(bar_chart(drawn, title="Accuracy", description="Two arms.", **options))


def lines(*drawn: Line, **options: object) -> ElementTree.Element:
    labels = {"title": "By depth", "description": "It falls.", "x_label": "swaps", "y_label": "right"}
    return ElementTree.fromstring(line_chart(drawn, **labels, **options))


def texts(chart: ElementTree.Element) -> list[str]:
    return [element.text for element in chart.iter(f"{SVG}text")]


def test_bar_is_as_long_as_its_share_of_the_maximum():
    widths = [element.get("width") for element in bars(1, 5, maximum=10).iter(f"{SVG}rect")]
    assert widths == ["100.00%", "10.00%", "100.00%", "50.00%"]  # each over its track


def test_mark_crosses_every_bar_where_it_belongs():
    chart = bars(0.2, 0.9, mark=CHANCE)
    assert [element.get("x1") for element in chart.iter(f"{SVG}line")] == ["25.00%", "25.00%"]
    assert "chance 25%" in texts(chart)


def test_interval_is_drawn_from_end_to_end():
    chart = bar_chart([Bar("arm", 0.5, "50%", interval=(0.4, 0.6))], title="t", description="d")
    (line,) = ElementTree.fromstring(chart).iter(f"{SVG}line")
    assert (line.get("x1"), line.get("x2")) == ("40.00%", "60.00%")


def test_chart_says_what_it_shows_to_those_who_do_not_see_it():
    chart = bars(0.5)
    assert chart.get("role") == "img"
    assert chart.get("aria-label") == "Accuracy. Two arms."
    assert [chart.findtext(f"{SVG}{name}") for name in ("title", "desc")] == ["Accuracy", "Two arms."]


def test_bars_are_read_out_where_nothing_else_is_said():
    chart = bar_chart([Bar("STORM", 1, "100%"), Bar("Direct", 0.25, "25%")], title="Accuracy")
    assert ElementTree.fromstring(chart).findtext(f"{SVG}desc") == "STORM: 100%; Direct: 25%."


def test_ends_of_lines_are_read_out_where_nothing_else_is_said():
    drawn = [Line("STORM", [(0, 0.5), (6, 1.0)]), Line("Direct", [(0, 1.0), (6, 0.25)])]
    chart = line_chart(drawn, title="By depth", x_label="swaps", y_label="right")
    assert ElementTree.fromstring(chart).findtext(f"{SVG}desc") == "STORM ends at 100%; Direct ends at 25%"


def test_labels_cannot_break_out_of_the_chart():
    chart = bar_chart([Bar("<script>&", 0.5, "50%")], title='"<b>', description="d")
    assert "<script>" not in chart
    assert "<script>&" in texts(ElementTree.fromstring(chart))


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_value_that_does_not_fit_is_refused(value):
    with pytest.raises(DatasetError, match="Expected `arm 0` to lie between 0 and the maximum"):
        bars(value)


def test_chart_of_nothing_is_refused():
    with pytest.raises(DatasetError, match="at least one bar"):
        bars()
    with pytest.raises(DatasetError, match="at least one line"):
        lines(Line("empty", []))


def test_higher_share_lies_higher_and_later_point_lies_further_right():
    circles = list(lines(Line("direct", [(0, 1.0), (3, 0.5), (6, 0.25)])).iter(f"{SVG}circle"))
    tops = [float(circle.get("cy")) for circle in circles]
    across = [float(circle.get("cx").rstrip("%")) for circle in circles]
    assert tops == sorted(tops)
    assert tops[1] - tops[0] == pytest.approx(2 * (tops[2] - tops[1]))
    assert across[1] == pytest.approx((across[0] + across[2]) / 2)


def test_every_point_says_its_value():
    chart = lines(Line("direct", [(0, 1.0), (6, 0.25)]))
    tooltips = [circle.findtext(f"{SVG}title") for circle in chart.iter(f"{SVG}circle")]
    assert tooltips == ["direct, 0: 100%", "direct, 6: 25%"]


def test_labels_of_lines_that_end_together_do_not_overlap():
    chart = lines(*(Line(f"arm {index}", [(0, 1.0), (1, 1.0)]) for index in range(3)))
    tops = [float(text.get("y")) for text in chart.iter(f"{SVG}text") if text.text.startswith("arm")]
    assert len(tops) == 3
    assert min(b - a for a, b in zip(tops, tops[1:], strict=False)) >= 30


def test_mark_takes_the_place_of_the_grid_label_it_would_cover():
    chart = lines(Line("direct", [(0, 1.0), (1, 0.5)]), mark=CHANCE)
    assert "chance 25%" in texts(chart)
    assert "25%" not in texts(chart)
    assert "75%" in texts(chart)
