"""The plots of the report, each as SVG inside the page."""
