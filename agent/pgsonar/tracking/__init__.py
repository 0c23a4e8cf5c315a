"""What is remembered between looks: connections, backends, slots, what logins, consoles and logs told last.

The rule: pure tables and sums. What was seen is handed in as plain values with its instant; nothing here looks, waits
or reads a clock, so that a recording replays to the same. Each mutable noun has one table that changes it.
"""
