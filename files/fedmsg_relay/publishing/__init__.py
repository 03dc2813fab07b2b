"""Deliver a message to a relay or, where none takes it, to the spool of this host."""
