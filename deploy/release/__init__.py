"""The checks of a release: licences and the bill of materials."""
