"""Shardline in one process under a virtual clock: every schedule is a function of its seed."""
