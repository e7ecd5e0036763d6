"""Engines on the nodes of a Ray cluster.

The gateway itself does not import Ray. For each engine it has a driver (`driver.py`), a process that connects to the cluster and
makes one actor on the node that the gateway chose. The actor (`node.py`) starts the same server process as on one machine, and
the gateway calls it over HTTP: no byte of a request goes through Ray. When the gateway, the driver, the actor or the node ends,
so does the server.
"""
