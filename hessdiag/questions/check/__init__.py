"""Why will it not train? The true cause first, from the weights as they are."""
