"""What result documents look like: one typed description per command, and the check of a document against it."""
