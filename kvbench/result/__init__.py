"""What is kept of a result: its folder, its plan, its runs and their requests."""
