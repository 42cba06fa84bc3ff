"""``ich-node score-archive``: every series of an archive scored, as Parquet.

``finding`` what files there are, ``indexing`` which series they belong to (an index on disk), ``scorer`` one series,
``parts`` what was scored, kept; ``running`` the line from archive to table. ``ray_pool`` spreads it over machines.
"""
