"""How do gradient and Hessian norms change with depth?"""
