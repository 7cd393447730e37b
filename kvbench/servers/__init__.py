"""Servers under test: how each is started, asked what it did, reset and stopped."""
