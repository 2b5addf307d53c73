"""Models that mark the answers which a rule leaves open. By default there is none, and the report notes it.

prompt    what a judge is asked, in our own words, and what its verdict means
judge     a judge with a memory: what it once answered lies on the disk, with the prompt
"""

from storm_hf.evaluation.judges.judge import Judge, judge_readings
from storm_hf.evaluation.judges.prompt import judge_prompt, read_verdict


__all__ = ["Judge", "judge_prompt", "judge_readings", "read_verdict"]
