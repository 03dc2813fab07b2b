"""The relay: take messages, check them, emit them to listeners, acknowledge them."""
