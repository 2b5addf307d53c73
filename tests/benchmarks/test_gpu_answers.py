import json
import sys

import gpu_answers
import pytest


TINY = ["--device", "cpu", "--size", "tiny", "--dtype", "float32", "--chain", "2", "--answer", "2", "--rounds", "1"]


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gpu_answers.py", *TINY, *map(str, arguments)])
    gpu_answers.main()


def test_table_is_filled_on_a_processor(monkeypatch, capsys, tmp_path):
    run(monkeypatch, "--prompts", 16, 32, "--out", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["prompt"] for row in found["rows"]] == [16, 32]
    assert all(len(seconds) == 1 and seconds[0] > 0 for row in found["rows"] for seconds in list(row.values())[1:])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1


def test_prompt_that_the_time_does_not_reach_is_named(monkeypatch, capsys, tmp_path):
    run(monkeypatch, "--prompts", 16, "--minutes", 0, "--out", tmp_path / "found.json")
    assert "16 tokens: left out" in capsys.readouterr().out
    assert not (tmp_path / "found.json").exists()


@pytest.mark.gpu
def test_table_is_filled_on_a_gpu(monkeypatch, tmp_path):
    run(monkeypatch, "--device", "cuda", "--prompts", 16, "--out", tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text())["copy_bandwidth"] > 0
