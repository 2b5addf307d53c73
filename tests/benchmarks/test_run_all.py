import sys
from pathlib import Path

import pytest
import run_all
from run_all import ALL, SPEED, Benchmark


@pytest.fixture
def speed(tmp_path, monkeypatch, capfd):
    """Runs `run_all.py --speed` with two benchmarks, one of them of an environment that is not there, and returns what it says."""
    script = tmp_path / "script.py"
    script.write_text("import sys; print('a table of', *sys.argv[1:])")
    lost = Benchmark("lost", str(script), python=tmp_path / "nowhere" / "python")
    monkeypatch.setattr(
        run_all, "SPEED", (lost, Benchmark("quick", str(script), "--rounds 'one two' --out {out}/quick.json"))
    )

    def speed(*arguments):
        monkeypatch.setattr(sys, "argv", ["run_all.py", "--speed", "--out", str(tmp_path / "all of it"), *arguments])
        run_all.main()
        return capfd.readouterr().out

    return speed


def test_names_are_unique_and_scripts_exist():
    names = [benchmark.name for benchmark in (*ALL, *SPEED)]
    assert len(set(names)) == len(names)
    assert all(Path(benchmark.command(Path("runs"))[1]).is_file() for benchmark in (*ALL, *SPEED))


def test_everything_that_is_written_lies_in_the_folder_that_is_named():
    commands = [benchmark.command(Path("else where")) for benchmark in (*ALL, *SPEED)]
    files = [command[command.index("--out") + 1] for command in commands if "--out" in command]
    assert files
    assert all(Path(file).parent == Path("else where") for file in files)


def test_finished_benchmarks_are_not_run_again_and_impossible_ones_do_not_stop_the_others(speed, tmp_path):
    assert "missing   lost\nmissing   quick\n" in speed("--list")
    assert "left out  lost" in speed()
    folder = tmp_path / "all of it"
    record = (folder / "quick.txt").read_text()
    assert record.endswith(f"a table of --rounds one two --out {folder}/quick.json\n")
    assert f"--rounds 'one two' --out '{folder}'/quick.json\n" in record, "as it is typed"
    assert "finished  quick" in speed()
