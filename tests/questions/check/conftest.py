"""The corpus is no test: collected for doctests, its modules would be imported twice, and enter their cases twice."""

collect_ignore_glob = ["corpus/*"]
