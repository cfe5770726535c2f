"""From staged segments to the final shards of an assembled dataset: decide, then assemble."""
