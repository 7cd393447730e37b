"""Reads the results of other load tools and writes them as result folders of kvbench."""
