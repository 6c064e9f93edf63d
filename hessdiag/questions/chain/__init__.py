"""The network of width one: closed forms beside simulation."""
