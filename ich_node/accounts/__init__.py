"""Who may use the web pages and the REST API: accounts with a role, sessions, and tokens of programs."""

from ich_node.accounts.passwords import LONGEST_PASSWORD, SHORTEST_PASSWORD
from ich_node.accounts.people import (
    Account,
    Login,
    add_account,
    change_password,
    change_role,
    disable_account,
    enable_account,
    list_accounts,
    log_in,
)
from ich_node.accounts.roles import Role
from ich_node.accounts.sessions import (
    Session,
    SessionRules,
    begin_session,
    end_session,
    end_sessions_of,
    find_session,
    forget_old_sessions,
)
from ich_node.accounts.tokens import ApiToken, add_token, find_token, list_tokens, revoke_token

__all__ = [
    "LONGEST_PASSWORD",
    "SHORTEST_PASSWORD",
    "Account",
    "ApiToken",
    "Login",
    "Role",
    "Session",
    "SessionRules",
    "add_account",
    "add_token",
    "begin_session",
    "change_password",
    "change_role",
    "disable_account",
    "enable_account",
    "end_session",
    "end_sessions_of",
    "find_session",
    "find_token",
    "forget_old_sessions",
    "list_accounts",
    "list_tokens",
    "log_in",
    "revoke_token",
]
