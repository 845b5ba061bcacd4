"""Credentials: what in a parameter looks like a password, a token or a key.

A parameter that holds one is refused, rather than hidden in what the run writes: papermill puts the parameters into the
executed notebook before its first cell runs, so that hiding them later would come too late for a run that is cut; and a
profile is made to be shared. Keys belong into the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SECRET_WORDS = {"token", "key", "apikey", "password", "passwd", "secret", "credential", "credentials"}
_IN_TEXT = {
    "a login in an address": re.compile(r"://[^/\s@]+@"),  # http://user:password@host
    # Hugging Face, OpenAI and others, GitHub
    "an access token": re.compile(r"\b(?:hf_|sk-|ghp_|github_pat_)\w{16,}"),
}


def find_credential(value: Any) -> str:
    """Return in words why `value`, or something inside of it, looks like a credential; "" if nothing does.

    A dictionary or a list of options is searched by the names too: what stands under `hf_token`, or after `--api-key`,
    is one. The words never hold the credential itself.
    """
    seen: set[int] = set()  # YAML can write a list that holds itself
    remaining: list[tuple[str, Any]] = [("", value)]
    while remaining:
        name, item = remaining.pop()
        if isinstance(item, str):
            if item and _SECRET_WORDS & set(re.split(r"[^a-z]+", name.lower())):
                return f"the value of {name!r}"
            for why, pattern in _IN_TEXT.items():
                if pattern.search(item):
                    return why
        elif isinstance(item, Mapping | list | tuple) and id(item) not in seen:
            seen.add(id(item))
            remaining += _options(item) if isinstance(item, list | tuple) else [(str(key), item[key]) for key in item]
    return ""


def _options(values: list[Any] | tuple[Any, ...]) -> list[tuple[str, Any]]:
    """Return each value with the option that it belongs to: `--name VALUE` or `--name=VALUE`; "" for one without."""
    named = []
    option = ""
    for value in values:
        if isinstance(value, str) and value.startswith("-"):
            option, _, own_value = value.partition("=")
            named.append((option, own_value))
        else:
            named.append((option, value))
            option = ""
    return named
