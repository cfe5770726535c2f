"""What a release is checked by: licences, and the bill of materials."""
