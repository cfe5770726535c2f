"""What filters of the text cost, and where their reasons differ from datatrove's."""
