import ast
import signal
from pathlib import Path

import pytest

import storm_hf
from storm_hf.processes import receiving_stops


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_that_ask_to_stop_are_handled_within_the_block_and_no_longer(number):
    before, came = signal.getsignal(number), []
    with receiving_stops(lambda number, frame: came.append(number)):
        signal.raise_signal(number)
    assert came == [number]
    assert signal.getsignal(number) is before


def test_handlers_are_back_after_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), receiving_stops(lambda number, frame: None):
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before


def test_modules_that_are_started_define_everything_before_they_run():
    modules = [(path, path.read_text(encoding="utf-8")) for path in Path(storm_hf.__file__).parent.rglob("*.py")]
    started = [(path, ast.parse(source)) for path, source in modules if "\nif __name__ ==" in source]
    assert started
    early = [path for path, tree in started if "__main__" not in ast.unparse(tree.body[-1])]
    assert not early
