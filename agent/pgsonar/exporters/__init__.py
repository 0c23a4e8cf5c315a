"""How rows leave: the only importers of opentelemetry."""
