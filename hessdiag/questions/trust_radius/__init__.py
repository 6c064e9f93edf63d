"""How far from here can the Hessian be believed?"""
