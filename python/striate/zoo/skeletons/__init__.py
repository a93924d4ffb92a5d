"""The nine shapes that rows fill."""
