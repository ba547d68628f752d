"""Driving load: the pure pacer and the client that streams."""
