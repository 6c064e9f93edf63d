"""Where can the eigenvalues be?"""
