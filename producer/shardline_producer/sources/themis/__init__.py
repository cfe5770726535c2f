"""The source `themis`: rows of a ThemisDB table over HTTP."""
