"""Servers under test: how each is started, asked for counters, reset and stopped."""
