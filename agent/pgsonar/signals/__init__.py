"""What leaves the agent, as plain rows: the catalog, the metrics, the leak events and spans."""
