"""Neighbours: loads that side clients put on storage or fabric, and the proof of what they delivered.

`crew.crew_for` is the way in.
"""
