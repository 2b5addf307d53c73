import time
from multiprocessing import get_context

import pytest

from storm_hf.pipeline import Step, Workspace, lock, locked


FORK = get_context("fork")


def hold(path, name, ready, seconds):
    with locked(path, name):
        ready.set()
        time.sleep(seconds)


def held_elsewhere(path, name, seconds):
    ready = FORK.Event()
    process = FORK.Process(target=hold, args=(path, name, ready, seconds))
    process.start()
    assert ready.wait(10)
    return process


@pytest.fixture(params=["fcntl", "none"], autouse=True)
def kind_of_lock(request, monkeypatch):
    """With and without the locks of POSIX, which Windows does not have."""
    if request.param == "none":
        monkeypatch.setattr(lock, "fcntl", None)


def test_name_held_by_another_process_is_not_had_without_waiting(tmp_path):
    process = held_elsewhere(tmp_path / "lock", "a", 60)
    with locked(tmp_path / "lock", "a", wait=False) as is_mine:
        assert not is_mine
    with locked(tmp_path / "lock", "b", wait=False) as is_mine:
        assert is_mine
    process.kill()
    process.join()
    with locked(tmp_path / "lock", "a", wait=False) as is_mine:
        assert is_mine, "a killed process holds nothing"


def append(task, path):
    time.sleep(0.02)
    path.write_text(task)
    with path.with_name("log.txt").open("a") as log:
        log.write(task)


def run(folder, names):
    Step("step", append).run(Workspace(folder), {name: name for name in names})


def test_processes_at_one_step_write_each_shard_once(tmp_path):
    names = list("abcdefgh")
    processes = [FORK.Process(target=run, args=(tmp_path, order)) for order in (names, names, names[::-1])]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert sorted((tmp_path / "step" / "log.txt").read_text()) == names
    assert [path.name for path in Workspace(tmp_path).shards("step")] == [*names, "log.txt"]
