"""An OpenAI-compatible endpoint for one checkpoint: `storm serve`."""
