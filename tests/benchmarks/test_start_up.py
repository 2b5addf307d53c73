import ast
from pathlib import Path

from start_up import only_ours, programs


OURS = """import time: self [us] | cumulative | imported package
import time:       100 |        100 |     ours.inner
import time:       200 |        300 |   ours
import time:       400 |        400 |   torch
import time:        50 |         50 |     known.new
import time:        10 |         60 |   known
import time:        40 |       2000 | __main__
"""
PLAIN = """import time:       400 |        400 | torch
import time:        10 |         60 | known
import time:        40 |        500 | __main__
"""


def test_only_the_outermost_imports_of_our_own_are_listed():
    assert only_ours(OURS, PLAIN) == [("ours", 0.3), ("known.new", 0.05)]


def test_both_programs_ask_the_same():
    codes = programs(Path("a model"), Path("a 'clip'.mp4"))
    for code in codes.values():
        texts = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
        assert {"a model", "a 'clip'.mp4", "Which cup holds the ball at the end?"} <= texts
