"""The run of the upstream tests can fail: what is not listed counts, and so does a line that is not needed."""

from xml.etree import ElementTree

import pytest
from tests.upstream.run import Verdict, judge, read_reasons, read_verdict


FAILED = Verdict("StormModelTest.test_save_load", "failed", "AssertionError")
PASSED = Verdict("StormModelTest.test_config", "passed")


def test_failure_without_a_reason_is_named():
    assert judge([FAILED, PASSED], {}, is_whole=True) == ["StormModelTest.test_save_load failed: AssertionError"]


def test_failure_with_a_reason_is_no_fault():
    assert judge([FAILED, PASSED], {FAILED.name: "on purpose"}, is_whole=True) == []


def test_reason_that_is_not_needed_any_more_is_named():
    (fault,) = judge([PASSED], {PASSED.name: "long ago"}, is_whole=True)
    assert "StormModelTest.test_config is listed" in fault


def test_part_of_the_tests_says_nothing_of_reasons():
    assert judge([PASSED], {FAILED.name: "on purpose"}, is_whole=False) == []


@pytest.mark.parametrize(
    ("inside", "outcome"),
    [
        ("", "passed"),
        ("<failure message='no'/>", "failed"),
        ("<error message='no'/>", "failed"),
        ("<skipped/>", "skipped"),
    ],
)
def test_outcomes_are_read_off_the_report(inside, outcome):
    case = ElementTree.fromstring(
        f"<testcase classname='models.storm.StormModelTest' name='test_config'>{inside}</testcase>"
    )
    verdict = read_verdict(case)
    assert (verdict.name, verdict.outcome) == ("StormModelTest.test_config", outcome)


def test_fewer_than_25_tests_are_listed_and_each_has_a_reason():
    reasons = read_reasons()
    assert len(reasons) < 25
    assert all(reasons.values())
