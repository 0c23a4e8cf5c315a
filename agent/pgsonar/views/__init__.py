"""What people look at, as lines of text. Pure: a snapshot in, lines out."""
