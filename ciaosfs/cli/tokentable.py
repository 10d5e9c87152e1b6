"""How users and tokens are shown to people. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ciaosfs.base.units import format_duration
from ciaosfs.cli.output import format_table, printable


def users_table(users: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each user, under a heading."""
    if not users:
        return ["No users: 'ciaosfs user add NAME' adds one."]
    rows = [["USER", "FOLDER", "OWNER", "SINCE"]]
    rows += [
        [
            str(user["name"]),
            printable(user["folder"]),
            f"{user['uid']}:{user['gid']}",
            _moment(user["created_ns"]),
        ]
        for user in users
    ]
    return format_table(rows)


def tokens_table(tokens: Sequence[Mapping[str, Any]], now_ns: int) -> list[str]:
    """One line for each token, under a heading."""
    if not tokens:
        return ["No tokens: 'ciaosfs token create --user NAME --scope read' gives one."]
    rows = [["TOKEN", "USER", "SCOPES", "PREFIX", "STATE", "FROM", "NAME"]]
    rows += [
        [
            str(token["id"]),
            str(token["user"]),
            ",".join(token["scopes"]),
            printable(token["prefix"]),
            state_of(token, now_ns),
            str(token["parent"] or "-"),
            str(token["name"] or "-"),
        ]
        for token in tokens
    ]
    return format_table(rows)


def token_details(token: Mapping[str, Any], now_ns: int) -> list[str]:
    """Everything about one token."""
    rows = [
        ["Token", str(token["id"]) + (f", {token['name']}" if token["name"] else "")],
        ["User", str(token["user"])],
        ["Scopes", ", ".join(token["scopes"])],
        ["Good for", printable(token["prefix"])],
        ["State", state_of(token, now_ns)],
        [
            "Made",
            _moment(token["created_ns"]) + (f" from token {token['parent']}" if token["parent"] else ""),
        ],
    ]
    if token["expires_ns"]:
        rows.append(["Expires", _moment(token["expires_ns"])])
    if token["revoked_ns"] and token["state"] == "revoked":
        rows.append(["Revoked", _moment(token["revoked_ns"])])
    return format_table(rows)


def summary(token: Mapping[str, Any], now_ns: int) -> str:
    """One token as the object of a sentence: its number and what it allows."""
    life = (
        f"for {format_duration((token['expires_ns'] - now_ns) / 1e9)}"
        if token["expires_ns"]
        else "until revoked"
    )
    return f"token {token['id']} of {token['user']} ({', '.join(token['scopes'])} in {printable(token['prefix'])}, {life})"


def state_of(token: Mapping[str, Any], now_ns: int) -> str:
    """Live and for how long, or how it ended."""
    if token["state"] != "live" or not token["expires_ns"]:
        return str(token["state"])
    return f"live for {format_duration((token['expires_ns'] - now_ns) / 1e9)}"


def _moment(time_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ns / 1e9))
