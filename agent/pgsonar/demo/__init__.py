"""The demonstration: an embedded server, clients that leak, an OTLP receiver."""
