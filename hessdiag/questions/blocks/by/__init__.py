"""`blocks --by`: how block-diagonal is the Hessian, in which norm, and do its blocks' spectra differ?"""
