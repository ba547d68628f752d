"""What a number in a table was made of: power over time, latencies by request; read from results/."""
