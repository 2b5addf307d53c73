"""Shared part of both stages: from rows to batches, and the start, saving, end and resumption of a run."""
