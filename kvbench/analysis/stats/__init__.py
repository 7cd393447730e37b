"""Statistics on plain numbers: intervals, ratios, rank tests, power and change points."""
