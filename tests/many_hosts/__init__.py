"""A node of several hosts: network namespaces with real links between them, a balancer, a PACS, a scanner, a database.

``network.py`` makes the hosts and cuts their links; ``host.py`` is what runs on one; ``site.py`` is the whole.
"""
