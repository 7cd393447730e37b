"""Computes from the files of a result what it shows: metrics, comparisons, verdicts and the summary."""
