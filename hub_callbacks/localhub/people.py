"""Handlers about users and organisations."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from .errors import HubError
from .registry import REPO_TYPES
from .web import Call, ok


def whoami(call: Call) -> Response:
    if call.viewer is None:
        raise HubError(401, "Invalid username or password.")
    user = call.viewer.user
    token = {"displayName": call.viewer.token_name, "role": call.viewer.role}
    orgs = [
        {"type": "org", "id": name, "name": name, "fullname": name, "isEnterprise": False, "roleInOrg": role}
        for name, role in call.viewer.organizations.items()
    ]
    return ok(
        {
            "type": "user",
            "id": user,
            "name": user,
            "fullname": user,
            "email": f"{user}@users.noreply.localhost",
            "emailVerified": True,
            "isPro": False,
            "orgs": orgs,
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


def user_overview(call: Call) -> Response:
    accounts = call.hub.accounts
    name = accounts.canonical(call.args["name"])
    if name is None or not accounts.is_user(name):
        raise HubError(404, "This user does not exist")
    orgs = [{"name": org, "fullname": org} for org in accounts.organizations_of(name)]
    return ok(
        {"user": name, "fullname": name, "type": "user", "isPro": False, "orgs": orgs, **_counts(call, name)}
    )


def organization_overview(call: Call) -> Response:
    name, members = _organization(call)
    return ok({"name": name, "fullname": name, "type": "org", "numUsers": len(members), **_counts(call, name)})


def organization_members(call: Call) -> Response:
    _, members = _organization(call)
    return ok([{"user": user, "fullname": user, "type": "user", "isPro": False} for user in members])


def _organization(call: Call) -> tuple[str, list[str]]:
    name = call.hub.accounts.canonical(call.args["name"]) or ""
    members = call.hub.accounts.members(name)
    if members is None:
        raise HubError(404, "This organization does not exist")
    return name, list(members)


def _counts(call: Call, owner: str) -> dict[str, Any]:
    """How many repositories of each kind the caller may see there."""
    registry = call.hub.registry
    return {f"num{kind.title()}s": len(registry.list(kind, owner, call.viewer)) for kind in REPO_TYPES}
