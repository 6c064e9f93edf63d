"""Which layers curve, and how do they couple?"""
