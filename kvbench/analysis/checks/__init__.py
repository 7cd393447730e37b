"""Rules on runs and treatments: is a measurement sound."""
