"""Neighbours: loads that side clients put on storage or network, and the proof of what they delivered.

`neighbor_loads.crew_for` is the way in.
"""
