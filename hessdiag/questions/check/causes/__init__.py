"""From readings to causes: one module of rules per part of a network, and one that ranks what they find."""
