"""Accounts, for administrators: who may log in, as what.

Annotations are evaluated as they stand: FastAPI reads them, and some name what is local to a function.
"""

import time
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse

from ich_node.accounts import (
    LONGEST_PASSWORD,
    SHORTEST_PASSWORD,
    Role,
    add_account,
    change_role,
    disable_account,
    enable_account,
    end_sessions_of,
    list_accounts,
)
from ich_node.errors import AccountError
from ich_node.web.deeds import Deed, acting, done, what_was_done
from ich_node.web.gate import Visitor
from ich_node.web.site import Site


def add_node_accounts(app: FastAPI, site: Site) -> None:
    """Add ``/node/accounts``."""
    administrator = site.gate.needs(Role.ADMINISTRATOR)

    @app.get("/node/accounts")
    def show(
        visitor: Annotated[Visitor, Depends(administrator)], said: Annotated[str, Depends(what_was_done)]
    ) -> HTMLResponse:
        """List the accounts."""
        page = site.pages.of_template(
            "node_accounts.html.j2", visitor, place="node", here="accounts", said=said, roles=list(Role),
            accounts=list_accounts(site.database), now=time.time(), shortest=SHORTEST_PASSWORD,
            longest=LONGEST_PASSWORD,
        )  # fmt: skip
        return HTMLResponse(page)


def add_account_deeds(app: FastAPI, site: Site) -> None:
    """Add what an administrator does with accounts."""
    acts = acting(site, Role.ADMINISTRATOR)

    def change(deed: Deed, command: str, said: str, how: Callable[[], object], **details: str) -> RedirectResponse:
        try:
            how()
        except AccountError as error:
            raise deed.refused(422, "Nothing was changed", f"Why: {error}.") from None
        site.audit.operated(deed.visitor.name, deed.address, command, Name=deed.field("name"), **details)
        return done("/node/accounts", said)

    @app.post("/node/accounts/add")
    def add(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Make an account; its password is typed twice."""
        name, role, password = deed.field("name"), _role(deed), deed.form.get("password", "")
        if password != deed.form.get("again", ""):
            raise deed.refused(422, "No account was made", "The two passwords are not the same.")
        return change(
            deed, "user-add", "added", lambda: add_account(site.database, name, role, password), Role=role
        )  # fmt: skip

    @app.post("/node/accounts/role")
    def another_role(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Give an account another role."""
        name, role = deed.field("name"), _role(deed)
        return change(deed, "user-role", "role", lambda: change_role(site.database, name, role), Role=role)

    @app.post("/node/accounts/disable")
    def disable(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Let nobody in by an account any more."""
        return change(deed, "user-disable", "disabled", lambda: disable_account(site.database, deed.field("name")))

    @app.post("/node/accounts/enable")
    def enable(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Let an account in again."""
        return change(deed, "user-enable", "enabled", lambda: enable_account(site.database, deed.field("name")))

    @app.post("/node/accounts/logout")
    def log_out(deed: Annotated[Deed, Depends(acts)]) -> RedirectResponse:
        """Log an account out everywhere."""
        name = deed.field("name")
        if name not in {one.name for one in list_accounts(site.database)}:
            raise deed.refused(422, "Nothing was changed", "There is no such account.")
        count = end_sessions_of(site.database, name)
        site.audit.operated(deed.visitor.name, deed.address, "user-logout", Name=name, Sessions=str(count))
        return done("/node/accounts", "out", count)


def _role(deed: Deed) -> Role:
    try:
        return Role(deed.field("role"))
    except ValueError:
        raise deed.refused(422, "Nothing was changed", "There is no such role.") from None
