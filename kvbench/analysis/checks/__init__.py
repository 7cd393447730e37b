"""Judges whether a run can be believed, and if not, says why not and what to do."""
