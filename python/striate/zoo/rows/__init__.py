"""Rows of data, one module for each skeleton."""
# fmt: off
