"""The process that runs for ever: what it opens, keeps, measures of itself and answers.

The rule: no judgement about PostgreSQL is made here; a part that fails is counted, said in one line with a hint, and
tried again, and everything else goes on.
"""
