"""The accuracy of the catalogue's losses, measured over many random rows: `python -m accuracy --help`."""
