"""The result folder: its files, and the values that are kept in them."""
