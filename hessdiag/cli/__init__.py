"""The command line: one small file per command. Importing it imports no torch."""
