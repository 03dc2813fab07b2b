"""The journal over HTTP, in a process of its own, and what reads it from there."""
