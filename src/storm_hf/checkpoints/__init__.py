"""Checkpoints: whole models and adapters, opened for inference."""
