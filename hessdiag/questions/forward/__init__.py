"""What becomes of the norm of a signal, in the median and on average?"""
