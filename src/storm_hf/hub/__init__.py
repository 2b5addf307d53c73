"""Checkpoints and data sets on the Hub: their cards and their upload."""
