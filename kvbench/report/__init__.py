"""Shows results: terminal tables, the progress view, and the HTML and PDF report."""
