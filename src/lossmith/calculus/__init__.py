"""What is true of a loss: its derivatives, their simplest forms and their stable ones, by rules held as data."""
