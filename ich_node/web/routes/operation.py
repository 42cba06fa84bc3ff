"""The operator's pages, and what hangs on them."""

from __future__ import annotations

from fastapi import FastAPI

from ich_node.web.deeds import add_refusals
from ich_node.web.routes.drift import add_drift
from ich_node.web.routes.node import add_node
from ich_node.web.routes.node_accounts import add_account_deeds, add_node_accounts
from ich_node.web.routes.node_lists import add_node_lists, add_series_deeds
from ich_node.web.routes.node_models import add_node_models
from ich_node.web.routes.node_records import add_node_records
from ich_node.web.routes.node_self_test import add_self_test
from ich_node.web.routes.node_sending import add_sending_deeds
from ich_node.web.routes.study_deeds import add_study_deeds, add_study_deletion
from ich_node.web.site import Site


def add_operation(app: FastAPI, site: Site) -> None:
    """Add ``/node``, and what an operator does with a study."""
    add_refusals(app, site)
    add_node(app, site)
    add_self_test(app, site)
    add_node_lists(app, site)
    add_series_deeds(app, site)
    add_sending_deeds(app, site)
    add_node_records(app, site)
    add_node_models(app, site)
    add_node_accounts(app, site)
    add_account_deeds(app, site)
    add_study_deeds(app, site)
    add_study_deletion(app, site)
    add_drift(app, site)
