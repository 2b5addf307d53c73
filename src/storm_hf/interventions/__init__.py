"""Interventions on latents: one vocabulary, one record and one way to feed, for every command and test."""
