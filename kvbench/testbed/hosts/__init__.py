"""Hosts where side clients run, and how they are reached."""
