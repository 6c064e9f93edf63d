"""How large a step will my optimizer take here? Curvature in its own metric against its threshold."""
