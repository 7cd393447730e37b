"""Statistics on plain numbers: intervals, ratios of two arms, rank tests, power, and change points."""
