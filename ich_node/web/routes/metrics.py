"""What a monitoring reads.

Annotations are evaluated as they stand: FastAPI reads them.
"""

from fastapi import FastAPI, Request
from fastapi.responses import Response

from ich_node.web.exposition import CONTENT_TYPE, Exposition
from ich_node.web.site import Site


def add_metrics(app: FastAPI, site: Site) -> None:
    """Add ``/metrics``."""
    exposition = Exposition(site.config, site.database, site.sizes)

    def let_in(request: Request) -> None:
        """Let in who asks from an address that may, and every program with a token.

        What a proxy passes on comes from the proxy's address: it is believed where the site trusts that proxy alone.
        """
        address = site.gate.address(request)
        peer = "" if request.client is None else request.client.host
        passed_on = address == peer and ("X-Forwarded-For" in request.headers or "Forwarded" in request.headers)
        if passed_on or not site.config.web.lets_measure(address):
            site.gate.program(request)

    @app.get("/metrics")
    def metrics(request: Request) -> Response:
        """Give all metrics, in Prometheus' text format."""
        let_in(request)
        return Response(exposition.text(), media_type=CONTENT_TYPE)
