"""Assembled datasets: what each record looks like, which stay, in which order, and in which shard."""
