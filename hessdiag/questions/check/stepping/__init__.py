"""An optimizer's steps on a copy of a network: how they are taken, and what is read off them."""
