"""How sharp is the loss, and which way does it curve down?"""
