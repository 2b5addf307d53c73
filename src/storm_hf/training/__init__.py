"""What both stages share: how rows become batches, and how a run starts, saves, stops and resumes."""
