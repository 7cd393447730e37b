"""Checks the claims of any document against arithmetic: each rule applies to the kinds of figures that it needs."""
