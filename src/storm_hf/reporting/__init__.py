"""Reports: HTML pages, charts, and a clip beside its thought."""

from storm_hf.atomic import write_atomically
from storm_hf.reporting.film import frame_data_uri, side_by_side, video_data_uri
from storm_hf.reporting.page import render_page
from storm_hf.reporting.plots import Bar, Line, Mark, bar_chart, line_chart


__all__ = [
    "Bar",
    "Line",
    "Mark",
    "bar_chart",
    "frame_data_uri",
    "line_chart",
    "render_page",
    "side_by_side",
    "video_data_uri",
    "write_atomically",
]
