"""The plots of a result: one file and one line in `registry` each."""
