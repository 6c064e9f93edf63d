"""Files of models, weights and data: looked through before anything in them is built, never trusted blindly."""
