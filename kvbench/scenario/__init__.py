"""The scenario file and what follows from it: its models, the plan of all runs, and the prompts."""
