import pytest

from storm_hf.errors import ConfigurationError
from storm_hf.evaluation.scorers import BENCHMARKS, SCORERS, Question, read_answer


QUESTION = Question("?", ("left", "right"), answer="B")


@pytest.mark.parametrize(("benchmark", "scorer"), [("mvbnch", "lmms"), ("mvbench", "lenient")])
def test_an_unknown_name_is_refused_with_the_known_ones(benchmark, scorer):
    with pytest.raises(ConfigurationError, match=r"Expected a (benchmark|scorer) out of .*mmvu|official"):
        read_answer(benchmark, scorer, "B", QUESTION)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("scorer", SCORERS)
def test_every_scorer_of_every_benchmark_reads_any_text(benchmark, scorer):
    for completion in ("", "\0", "(((", "</think>", "<think>", "𝔅" * 500, "a) b) c)", "\\boxed{"):
        read_answer(benchmark, scorer, completion, QUESTION)
