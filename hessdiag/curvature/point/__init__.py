"""What kind of point the parameters are at: whether there is a Hessian, and whether autograd gives it."""
