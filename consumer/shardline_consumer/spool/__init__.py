"""The spool: files in which open segments wait, their folder and their budget."""
