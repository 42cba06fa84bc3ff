"""The routes, a file for each kind of page."""

from ich_node.web.routes.alerts import add_alerts
from ich_node.web.routes.answers import add_answers
from ich_node.web.routes.assets import add_assets
from ich_node.web.routes.concordance import add_concordance
from ich_node.web.routes.health import add_health
from ich_node.web.routes.heatmaps import add_heatmaps
from ich_node.web.routes.images import add_images
from ich_node.web.routes.live import add_live
from ich_node.web.routes.login import add_login
from ich_node.web.routes.metrics import add_metrics
from ich_node.web.routes.operation import add_operation
from ich_node.web.routes.session import add_session
from ich_node.web.routes.study import add_study
from ich_node.web.routes.worklist import add_worklist

__all__ = [
    "add_alerts",
    "add_answers",
    "add_assets",
    "add_concordance",
    "add_health",
    "add_heatmaps",
    "add_images",
    "add_live",
    "add_login",
    "add_metrics",
    "add_operation",
    "add_session",
    "add_study",
    "add_worklist",
]
