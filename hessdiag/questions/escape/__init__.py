"""Which optimizer leaves this plateau, when, and why?"""
