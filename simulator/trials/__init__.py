"""Simulations by the hundred: what is asked of each, what comes out of it, and processes to run them in."""
