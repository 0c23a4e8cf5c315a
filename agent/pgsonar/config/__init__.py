"""The configuration: what can be written (`schema`), and how it is read (`load`)."""
