"""What judges and changes the text of a document: the shape of filters, and the facts they share."""
