"""What people look at, as lines of text.

The rule: pure. A snapshot goes in and lines come out; nothing is judged here that `episodes` or `detectors` have not.
"""
