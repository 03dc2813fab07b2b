"""A short bench that fails when the relay has become much slower, or takes much more memory."""
