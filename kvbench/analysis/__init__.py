"""What the requests of a result mean: metrics, comparisons, verdicts and the summary of them all."""
