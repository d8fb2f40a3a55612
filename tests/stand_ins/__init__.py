"""Stand-ins for TEI and Qdrant that speak their protocols over sockets, quickly or wrongly.

``local_stack`` is the faithful one; these are for what a well-behaved server never does.
"""
