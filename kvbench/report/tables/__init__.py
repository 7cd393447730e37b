"""The tables of the report and the terminal."""
