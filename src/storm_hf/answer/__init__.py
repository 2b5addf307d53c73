"""Stage II: answers only. Nothing in this folder knows what a thought video is."""
