"""The alerts and the dashboard: `rules.yaml` is the one source of the former."""
