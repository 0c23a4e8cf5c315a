"""The stages wired, from the outside world to the reporter.

The rule: `pipeline.py` is the only place that knows every stage; `world.py` says what the outside world must be able to
answer, so that a recording can stand in for it. The other modules each do one step that needs both sides.
"""
