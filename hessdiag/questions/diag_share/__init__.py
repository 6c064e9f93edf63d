"""How diagonal is the Hessian?"""
