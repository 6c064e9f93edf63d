"""How are the eigenvalues distributed?"""
