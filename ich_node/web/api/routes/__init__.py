"""The addresses of the API, by what they are about."""

from ich_node.web.api.routes.acknowledgement import add_acknowledgement
from ich_node.web.api.routes.feedback import add_feedback
from ich_node.web.api.routes.node import add_node
from ich_node.web.api.routes.requeue import add_requeue
from ich_node.web.api.routes.results import add_results
from ich_node.web.api.routes.studies import add_studies

__all__ = ["add_acknowledgement", "add_feedback", "add_node", "add_requeue", "add_results", "add_studies"]
