"""`--show-python`: the script that does what a command line does, made from the command's options."""
