"""Measures the relay beside upstream's and libzmq's own proxy: `make bench`, see README.md."""
