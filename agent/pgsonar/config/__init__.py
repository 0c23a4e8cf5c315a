"""The configuration: what can be written (`schema`), and how it is read (`load`).

The rule: nothing but the configuration is opened here. An error names the key, the file and the line; others take the
schema's plain values and nothing else.
"""
