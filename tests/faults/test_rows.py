"""The table of faults finds what commands do wrong: each of these does one thing wrong, and one does nothing wrong."""

import random
import sys
import time

import pytest
from tests.faults.child import Child
from tests.faults.commands import Command, diagnosis_without_time
from tests.faults.faults import FAULTS
from tests.faults.files import files_of
from tests.faults.place import Place
from tests.faults.rows import Scene, make_reference, play
from tests.faults.table import in_process

from storm_hf.atomic import write_atomically


NUM_SHARDS = 6


def careful(place):
    """Write shards whole, and none twice."""
    for number in range(NUM_SHARDS):
        path = place.out / "data" / f"{number}.parquet"
        if not path.exists():
            write_atomically(path, "content " * 1000)


def half_writing(place):
    """Write under the final name, with a pause in the middle that no kill misses."""
    (place.out / "data").mkdir(exist_ok=True)
    for number in range(NUM_SHARDS):
        path = place.out / "data" / f"{number}.parquet"
        if not path.exists():
            with path.open("w") as file:
                file.write("content " * 500)
                file.flush()
                time.sleep(0.1)
                file.write("content " * 500)


def repeating(place):
    """Begin anew."""
    for number in range(NUM_SHARDS):
        write_atomically(place.out / "data" / f"{number}.parquet", "content " * 1000)


def refusing(place):
    """Refuse to go on."""
    if (place.out / "data" / "0.parquet").exists():
        raise SystemExit(2)
    careful(place)


@pytest.fixture
def table(tmp_path):
    """Plays a fault of a command in a process of its own."""
    place = Place(tmp_path, port=0)
    place.read("data").mkdir(parents=True)

    def outcome(work, fault, seed=0):
        command = Command(work.__name__, work, files_of, files_of, "data")

        def do():
            scene = Scene(command, place, make_reference(command, place), random.Random(seed))
            return play(scene, FAULTS[fault])

        return in_process(do, 60)

    return outcome


@pytest.mark.parametrize("fault", ["kill", "SIGTERM", "quota", "too many files", "two runs"])
def test_command_that_does_nothing_wrong_holds(table, fault):
    assert table(careful, fault).faults == ()


@pytest.mark.parametrize(
    ("work", "fault"),
    [(half_writing, "half-written"), (repeating, "made twice"), (refusing, "the same command fails")],
)
def test_command_that_does_something_wrong_is_found(table, work, fault):
    found = [fault for seed in range(3) for fault in table(work, "kill", seed).faults]
    assert any(each.startswith(fault) for each in found), found


def test_command_stops_before_the_event_that_was_asked_for(tmp_path):
    place = Place(tmp_path, port=0)
    child = Child(lambda: careful(place), tmp_path, stop_at=9)
    assert child.wait_for_stop(60)
    before = len(list((place.out / "data").glob("*.parquet")))
    time.sleep(0.1)
    assert len(list((place.out / "data").glob("*.parquet"))) == before < NUM_SHARDS
    child.go_on()
    ending = child.wait(60)
    assert (ending.code, ending.manner) == (0, "code 0")
    assert ending.num_events > 9


def test_process_that_takes_too_long_is_ended_with_all_that_came_of_it(tmp_path):
    def start_and_wait():
        Child(lambda: time.sleep(600), tmp_path).wait(600)

    with pytest.raises(TimeoutError, match="more than 1 s"):
        in_process(start_and_wait, 1)


def test_command_that_prints_into_a_file_waits_for_no_reader(tmp_path):
    """A pipe holds 64 KiB."""
    done = tmp_path / "done"

    def print_much():
        sys.stdout.write("line\n" * 100_000)
        done.touch()

    child = Child(print_much, tmp_path, printed_to=tmp_path / "printed.txt")
    deadline = time.monotonic() + 30
    while not done.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert child.wait(60).last_line == "line"


def test_diagnoses_differ_in_all_but_their_time(tmp_path):
    found = []
    for number, (seconds, accuracy) in enumerate([(1.25, 0.5), (61.0, 0.5), (1.25, 0.75)]):
        folder = tmp_path / str(number)
        write_atomically(folder / "diagnosis.json", f'{{\n  "accuracy": {accuracy},\n  "seconds": {seconds}\n}}\n')
        write_atomically(folder / "diagnosis.html", f"<dt>Time</dt><dd>{seconds:.0f} s</dd>")
        found.append(diagnosis_without_time(folder))
    assert found[0] == found[1] != found[2]
