"""Published figures as data: claims, printed numbers, and the library of documents."""
