"""The least of a quadratic function within a length: what steps of `hessdiag.linalg.trust_region` are made of."""
