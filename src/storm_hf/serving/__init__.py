"""A checkpoint behind an OpenAI-compatible endpoint, on top of the server of transformers: `storm serve`."""
