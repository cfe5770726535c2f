"""The spool: the files of open segments, their folder and their budget."""
