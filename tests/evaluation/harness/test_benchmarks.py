from pathlib import Path

import pytest

from storm_hf.errors import ConfigurationError, DatasetError
from storm_hf.evaluation.harness.benchmarks import BENCHMARKS, benchmark_of, num_questions, tasks_of


PAGE = Path(__file__).parents[3] / "docs" / "evaluate.md"


def test_benchmarks_have_the_sizes_that_were_published():
    sizes = {name: sum(benchmark.tasks.values()) for name, benchmark in BENCHMARKS.items()}
    assert sizes == {
        "videomme": 2700,
        "videomme_w_subtitle": 2700,
        "mvbench": 4000,
        "tempcompass": 7540,
        "mmvu": 1000,
    }
    assert len(BENCHMARKS["mvbench"].tasks) == 20


def test_names_of_benchmarks_and_of_tasks_become_tasks_once_each():
    assert tasks_of(["mmvu", "mvbench_action_count", "mmvu_val", "videomme"]) == [
        "mmvu_val",
        "mvbench_action_count",
        "videomme",
    ]
    assert len(tasks_of(["mvbench", "tempcompass"])) == 24


def test_unknown_name_is_told():
    with pytest.raises(ConfigurationError, match="no benchmark 'mvbenhc'; expected videomme, "):
        tasks_of(["mvbenhc"])


def test_missing_data_are_told_with_the_command_that_gets_them(tmp_path):
    benchmark = benchmark_of("mvbench_action_count")
    with pytest.raises(DatasetError, match="questions of OpenGVLab/MVBench") as error:
        benchmark.check(tmp_path)
    folder = tmp_path / "OpenGVLab/MVBench"
    assert f"hf download OpenGVLab/MVBench --repo-type dataset --revision video --local-dir {folder}" in str(
        error.value
    )
    folder.mkdir(parents=True)
    (folder / "README.md").touch()
    with pytest.raises(DatasetError, match=f"videos of OpenGVLab/MVBench are not in {tmp_path / 'mvbench_video'}"):
        benchmark.check(tmp_path)


def test_stand_ins_pass_as_data(data_root):
    for benchmark in BENCHMARKS.values():
        benchmark.check(data_root)


def test_limit_bounds_the_number_of_questions():
    assert (num_questions("mmvu_val"), num_questions("mmvu_val", 20)) == (1000, 20)
    assert num_questions("mvbench_action_count", 5000) == 200


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS)
def test_page_shows_where_questions_and_videos_lie(benchmark):
    page = PAGE.read_text()
    assert benchmark.repository in page
    assert f"{benchmark.videos}/" in page


def test_page_gets_video_mme_with_the_command_that_its_error_names():
    command = BENCHMARKS["videomme"].command(Path("data"))
    assert command in PAGE.read_text()
