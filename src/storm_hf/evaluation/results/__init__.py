"""Results of lmms-eval's logs, with the provenance of each number.

samples     what was asked and answered, read from `*_samples_*.jsonl`
documents   a benchmark's own fields as a question of ours
score       accuracy with its denominator, its error and what could not be read
report      what a run shows: every variant, task, sub-score and scorer; the differences between variants
rescoring   the logged samples read by each scorer, into a report
table       the same on a terminal
page        the same as JSON and as HTML
"""

from storm_hf.evaluation.results.page import report_table
from storm_hf.evaluation.results.report import Report, Score, score_readings
from storm_hf.evaluation.results.rescoring import report_run
from storm_hf.evaluation.results.samples import Sample, read_samples


__all__ = ["Report", "Sample", "Score", "read_samples", "report_run", "report_table", "score_readings"]
