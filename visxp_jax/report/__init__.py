"""The report of a run: one self-contained page to look at and listen to."""
