"""A broker and an object store in memory, which pass the same contract suites as the real ones."""
