"""The load client, which sends a point's requests, and the pure pacer that says when."""
