"""Interfaces of other libraries, computed by striate."""
