"""Decide what may pass, and who may connect."""
