"""What was read, kept in a file and played again.

The rule: taps stand between the sources and the pipeline and change nothing; what is hidden is hidden before it is
written; a recording plays through the pipeline that runs live.
"""
