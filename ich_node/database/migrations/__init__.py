"""Alembic's scripts. One file per schema; the newest is what ``tables`` describes."""
