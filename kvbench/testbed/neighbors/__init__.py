"""Neighbours: loads that side clients put on storage or network, and the proof of what they delivered.

`neighbor_loads.side_clients_of` is the way in.
"""
