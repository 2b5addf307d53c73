import signal

import pytest

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
