"""Where the values of options come from besides the command line, and how they are shown: see `hessdiag.cli.config`."""
