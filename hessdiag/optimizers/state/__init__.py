"""What an optimizer holds of each parameter: read off it or out of a file, and what it makes of gradients."""
