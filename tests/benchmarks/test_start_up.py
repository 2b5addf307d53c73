import ast
from pathlib import Path

from start_up import only_ours, programs


OURS = """import time: self [us] | cumulative | imported package
import time:       100 |        100 |     ours.inner.deep
import time:       200 |        300 |   ours.inner
import time:       400 |        400 |   torch
import time:       500 |        500 |   ours
import time:        40 |       2000 | __main__
"""
PLAIN = """import time:       400 |        400 | torch
import time:        40 |        500 | __main__
"""


def test_imports_of_our_own_are_added_up_by_package():
    assert only_ours(OURS, PLAIN) == [("ours", 0.5), ("ours.inner", 0.3)]


def test_both_programs_ask_the_same():
    codes = programs(Path("a model"), Path("a 'clip'.mp4"))
    for code in codes.values():
        texts = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
        assert {"a model", "a 'clip'.mp4", "Which cup holds the ball at the end?"} <= texts
