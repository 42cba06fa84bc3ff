"""The REST API for programs, under ``/api/v1``: an application of its own, so that pages and API do not mix."""

from ich_node.web.api.application import add_api

__all__ = ["add_api"]
