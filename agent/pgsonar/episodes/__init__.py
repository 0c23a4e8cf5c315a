"""Findings get a life: what counts of them, what caused what, when an episode opens, grows worse and ends.

The rule: pure. Time comes with the findings; an episode always ends, and says why.
"""
