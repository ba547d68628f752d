"""Helpers on this host or another one: the load client's processes, power samplers, the built-in mock."""
