"""A dataset in its store: segments, manifest, card, and the checks that prove them."""
