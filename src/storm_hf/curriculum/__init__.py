"""Training in several stages: which one follows which, and all of them as one run that can be stopped at any time."""
