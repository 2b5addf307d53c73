import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.harness import sharing
from storm_hf.evaluation.harness.answer_log import LoggedAnswer
from storm_hf.evaluation.harness.launch import are_running, failed_rank, log_file, started_together
from storm_hf.evaluation.harness.sharing import AnsweringProcesses, joined_processes


CLIPS = [*"aaabbbbccdef", *"aaa", *"gh"]


def shares(groups, num_processes):
    return [AnsweringProcesses(rank, num_processes).share(groups) for rank in range(num_processes)]


@pytest.mark.parametrize("num_processes", [1, 2, 3, 30])
def test_every_question_is_asked_by_one_process_and_clips_stay_together(num_processes):
    given = shares(CLIPS, num_processes)
    assert sorted(place for share in given for place in share) == list(range(len(CLIPS)))
    assert all(share == sorted(share) for share in given)
    owners = [{CLIPS[place] for place in share} for share in given]
    assert Counter(clip for clips in owners for clip in clips) == dict.fromkeys(CLIPS, 1)


def test_shares_are_of_one_size():
    assert [len(share) for share in shares(range(11), 3)] == [4, 4, 3]
    sizes = [len(share) for share in shares(CLIPS, 2)]
    assert sum(sizes) == len(CLIPS)
    assert abs(sizes[0] - sizes[1]) <= max(Counter(CLIPS).values())


def test_process_that_is_alone_does_everything(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_processes(None) as processes:
        assert (processes, processes.is_main) == (AnsweringProcesses(), True)
        processes.wait()
        assert processes.share(CLIPS) == list(range(len(CLIPS)))
        assert processes.gather({"key": answer("yes")}) == {"key": answer("yes")}


def test_more_processes_than_accelerators_are_refused(monkeypatch):
    monkeypatch.setattr(sharing.torch.accelerator, "current_accelerator", lambda check_available: "cuda")
    monkeypatch.setattr(sharing.torch.accelerator, "device_count", lambda: 2)
    for name, value in {"WORLD_SIZE": "3", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=r"each of 2 accelerators, got 3 processes\. Set --num-processes 2"):
        joined_processes(None).__enter__()


def answer(text):
    return LoggedAnswer(text, 1, 1, 0, 4, "own", [], 5, 0.5, False)


MEETING = """
import os
from tests.evaluation.harness.test_sharing import answer
from storm_hf.evaluation.harness.sharing import joined_processes

with joined_processes("cpu") as processes:
    processes.wait()
    rank, alone = processes.rank, "WORLD_SIZE" not in os.environ
    given = processes.gather({f"key {rank}": answer(f"answer of {rank}")})
    print(rank, processes.num_processes, alone, sorted((key, value.text) for key, value in given.items()))
"""


def test_two_processes_meet_and_each_has_the_answers_of_both(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", ".", os.environ.get("PYTHONPATH", "")])}
    with started_together([sys.executable, "-c", MEETING], 2, tmp_path, environment) as processes:
        for process in processes:
            process.wait()
        assert (are_running(processes), failed_rank(processes)) == (False, None), printed(tmp_path, 0)
    both = [("key 0", "answer of 0"), ("key 1", "answer of 1")]
    assert [printed(tmp_path, rank).splitlines()[-1] for rank in (0, 1)] == [
        f"{rank} 2 True {both}" for rank in (0, 1)
    ]


def printed(folder: Path, rank: int) -> str:
    return log_file(folder, rank).read_text()


def started(program, tmp_path, num_processes=3):
    return started_together([sys.executable, "-c", program], num_processes, tmp_path, dict(os.environ))


def test_process_that_fails_ends_the_others(tmp_path):
    program = "import os, sys, time; time.sleep(600) if os.environ['RANK'] != '1' else sys.exit('no')"
    with started(program, tmp_path) as processes:
        processes[1].wait()
        assert (are_running(processes), failed_rank(processes)) == (False, 1)
    assert [process.returncode for process in processes] == [-15, 1, -15]
    assert [printed(tmp_path, rank) for rank in (0, 1, 2)] == ["", "no\n", ""]


@pytest.mark.parametrize(("codes", "first"), [((1, 2, 1), 1), ((1, 0, -9), 2), ((0, 1, 1), 1), ((0, 0, 0), None)])
def test_reason_or_kill_goes_before_those_that_missed_the_process(tmp_path, codes, first):
    program = f"import os; code = {codes}[int(os.environ['RANK'])]; os.kill(os.getpid(), -code) if code < 0 else os._exit(code)"
    with started(program, tmp_path) as processes:
        for process in processes:
            process.wait()
        assert failed_rank(processes) == first


@pytest.mark.parametrize(("given", "expected"), [({"OMP_NUM_THREADS": "7"}, "7"), ({}, "3")])
def test_processes_share_the_cores_that_they_may_use_unless_threads_are_given(monkeypatch, tmp_path, given, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # the environment that is given counts, not this one
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    command = [sys.executable, "-S", "-c", "import os; print(os.environ['OMP_NUM_THREADS'])"]
    with started_together(command, 2, tmp_path, given) as processes:
        for process in processes:
            process.wait()
    assert [printed(tmp_path, rank).strip() for rank in (0, 1)] == [expected] * 2
