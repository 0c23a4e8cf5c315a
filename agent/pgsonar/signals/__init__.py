"""What leaves the agent, as plain rows: the catalog, the metrics, the leak events and spans.

The rule: pure. A name, a unit or a sentence that leaves stands in this folder once; how it leaves is for exporters.
"""
