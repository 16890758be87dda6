"""What a loss is: expressions in index notation, how they are read and how they are printed."""
