"""What is shown: terminal tables, the live view, and the HTML and PDF report."""
