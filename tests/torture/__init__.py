"""kill -9 and power cuts, in numbers: ``make torture``, and as much of it as fits into the test suite.

The node's real roles, forked from a warm process so that a restart takes a tenth of a second; peers that note what
they were told; and a check from outside that opens database, spool and notes with nothing of the node.

===================== =============================================================================================
``shim.c``            loaded into every role: records writes, syncs and renames; may kill within a write, send or recv
``fork_server.py``    warm parent of the roles; ``roles.py`` what a child becomes; ``stub_model.py`` no torch
``studies.py``        studies to send; ``peers.py`` sender, PACS and RIS, each a process with notes of its own
``committing.py``     that PACS, asked for storage commitment
``node.py``           one node under torture; ``strikes.py`` where it is killed; ``kills.py`` the campaign of kills
``replay.py``         a journal → what the disk may hold after a power cut; ``cuts.py`` the campaign of cuts
``outsiders.py``      what senders saw, and somebody at another address
``invariants.py``     what must be true afterwards, seen from outside
===================== =============================================================================================
"""
