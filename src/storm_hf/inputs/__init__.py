"""Inputs of the model: rows of any form as prompts, with their clips decoded and their options worded."""
