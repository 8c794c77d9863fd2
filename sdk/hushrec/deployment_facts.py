"""What a bundle may say about the shoppers behind it, as facts for a public page.

The fields are those that a registry of deployments asks for (proposed by Dwork, Kohli, Mulligan 2019, "Differential
privacy in practice: expose your epsilons!"; the fields as the OpenDP Deployments Registry has them);
docs/deployment-facts.md says which is where. What holds comes from the bundle alone: the origin of each part, and the
guarantee that its card carries. One private part, or parts of two runs, and there is no guarantee. Who publishes it,
where and why, only the shop can tell; nothing that it tells changes what holds.
"""

import json
from collections.abc import Mapping
from typing import Any

from hushrec_privacy import checks
from hushrec_privacy.accounting.guarantee import WEAK_EPSILON, rounded_up
from hushrec_privacy.errors import ConfigError

from hushrec.manifest import NO_GUARANTEE, Manifest, unguaranteed

__all__ = ["SHOP_FACTS", "deployment_facts", "facts_page", "read_shop_facts"]

SHOP_FACTS = ("name", "data_curators", "intended_use", "region", "sector", "published", "justification")
"""What only the shop can tell; `intended_use` has words of ours where it does not."""

_STATED = ("epsilon", "delta", "unit", "adjacency", "mechanism", "trust", "assumptions", "slack", "run", "ledger_head")
_LONGEST = 2000
_SECTIONS = {
    "What it is": {
        "name": "Name",
        "data_curators": "Who holds the data and publishes the model",
        "description": "Description",
        "intended_use": "Intended use",
        "data_product_type": "Kind of product",
        "region": "Region",
        "sector": "Sector",
        "published": "Published",
        "model_version": "Model version",
        "software": "Made by",
    },
    "What holds": {
        "headline": "What holds for this bundle",
        "variant": "Variant of differential privacy",
        "epsilon": "Epsilon",
        "delta": "Delta",
        "unit": "Whose presence is hidden (privacy unit)",
        "units": "How many such units epsilon is for",
        "adjacency": "Neighbouring data",
        "data_domain": "Data that it is made from",
        "unprotected": "What is not protected",
    },
    "Who does what": {
        "deployment_model": "Deployment model",
        "trust": "Who is trusted",
        "actors": "Who takes part",
        "release_type": "Releases",
        "data_source_type": "Data source",
        "access_type": "Access",
    },
    "How it is made": {
        "mechanism": "Mechanism",
        "composition": "Composition",
        "tuning": "Preparation and tuning",
        "post_processing": "What is done after the noise",
        "justification": "Why this epsilon",
        "utility": "Quality",
        "run": "Run in the ledger",
        "ledger_head": "Head of the ledger",
    },
}
_ALWAYS = {
    "description": "A small model that ranks the items of a shop. Devices get it as files, and each applies it to its "
    "own shopper's events, which stay there.",
    "intended_use": "Recommending items on the shopper's own device.",
    "data_product_type": "machine learning model",
    "data_domain": "The shop's event log: for every user a sequence of events on items.",
    "units": 1,
    "actors": "The shop trains on its log. Shoppers' devices, and whoever else gets the bundle, see nothing but it.",
    "release_type": "One release. Each further one from the same people adds to it, and this page knows of none.",
    "data_source_type": "Static: the log is read once, when training begins.",
    "access_type": "Non-interactive: the bundle is a set of files, and nobody asks the log anything.",
    "run": None,
    "ledger_head": None,
}
_WITHOUT = {
    "variant": "none",
    "epsilon": "inf",
    "delta": 0.0,
    "unit": "nobody's",
    "adjacency": "none",
    "unprotected": "everything that the log says",
    "deployment_model": "none",
    "trust": "whoever holds the bundle may learn about single shoppers in the log",
    "mechanism": "none: at least one part comes from the log without differential privacy",
    "composition": "none: nothing bounds what several releases tell together",
    "tuning": "Settings were decided from the log.",
    "post_processing": "There is no noise.",
    "utility": "Measured on events of the log; see the bundle's own card: hushrec inspect BUNDLE.",
    "assumptions": [],
    "slack": {},
}
_PUBLIC: dict[str, Any] = {
    "epsilon": 0.0,
    "unprotected": "nothing of the log is in it",
    "trust": "nobody has to be: nothing comes from the log",
    "data_domain": "Public data; no event log.",
    "actors": "Whoever makes the bundle uses public data; no shopper takes part.",
    "release_type": "No release tells anything of a shopper.",
    "data_source_type": "No log is read.",
    "mechanism": "no part comes from the log",
    "composition": "nothing is added: no part comes from the log",
    "tuning": "Nothing was decided from the log.",
    "utility": "Not measured on the log.",
}
_GUARANTEED: dict[str, Any] = {
    "variant": "approximate: (epsilon, delta)-differential privacy",
    "unprotected": "The catalogue, which is the shop's list of items, and whatever the assumptions call public.",
    "deployment_model": "central: noise is added where the data is, before anything is published",
    "composition": "All steps and tables of the run are composed together; epsilon is for all of them.",
    "tuning": "User ids become pseudonyms, and events on items that the catalogue lacks are left out. But for "
    "epsilon, delta and clip norm, settings are the same for every shop, chosen on public data; what "
    "is decided from the log is decided from noised counts.",
    "post_processing": "Counts: threshold, scaled rows, the strongest of each row, a weight. Weights: an average. "
    "Then int8 and export. None looks at the log again.",
    "utility": "Not told: figures measured on private events stay with the shop.",
}


def deployment_facts(manifest: Manifest, shop: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Facts of a bundle, JSON values.

    Args:
        manifest: Of a bundle whose files were verified.
        shop: What the shop tells beside it, from `read_shop_facts`.

    Returns:
        The headline, a guarantee (epsilon "inf" where there is none), the origin of every file, and the fields of a
        registry; what the shop did not tell is None.
    """
    origins = {name: info.origin for name, info in manifest.files.items()}
    private = sorted(name for name, origin in origins.items() if origin == "private")
    unknown = unguaranteed(origins.values())
    stated = manifest.card.get("privacy")
    found: dict[str, Any] = {}
    if isinstance(stated, dict) and not unknown:
        found = _GUARANTEED | {name: stated[name] for name in _STATED if name in stated}
    elif all(origin == "public" for origin in origins.values()):
        found = _PUBLIC
    headline = NO_GUARANTEE if unknown else manifest.card.get("headline", NO_GUARANTEE)
    if isinstance(epsilon := found.get("epsilon"), int | float) and epsilon > WEAK_EPSILON:
        headline = f"{headline} (an epsilon above {WEAK_EPSILON} promises next to nothing)"
    return {
        "headline": headline,
        **dict.fromkeys(SHOP_FACTS),
        **_ALWAYS,
        **_WITHOUT,
        **found,
        **(shop or {}),
        "software": manifest.card.get("made_by"),
        "model_version": manifest.model_version,
        "origins": origins,
        "private_parts": private,
    }


def read_shop_facts(data: bytes) -> dict[str, str]:
    """Read what a shop tells about itself: a JSON object with some of `SHOP_FACTS`, texts all.

    Raises:
        ConfigError: It is something else.

    >>> read_shop_facts(b'{"name": "Mugs and more"}')
    {'name': 'Mugs and more'}
    """
    try:
        told = json.loads(data)
    except (ValueError, RecursionError) as error:  # also a wrong code unit of UTF-8
        raise ConfigError(f"the shop's facts are not JSON ({error}); write an object with texts") from error
    if not isinstance(told, dict):
        raise ConfigError(f"the shop's facts are no JSON object; write texts for some of {', '.join(SHOP_FACTS)}")
    for name, text in told.items():
        checks.one_of(SHOP_FACTS, fact=name)
        if not (isinstance(text, str) and 1 <= len(text) <= _LONGEST):
            raise ConfigError(f"the shop's fact {name!r} must be a text of 1 to {_LONGEST} characters")
    return told


def facts_page(facts: Mapping[str, Any]) -> str:
    """The page, in Markdown.

    Args:
        facts: From `deployment_facts`.
    """
    lines = [f"# Privacy of this model: {facts['headline']}"]
    for heading, titles in _SECTIONS.items():
        lines += ["", f"## {heading}", "", "| | |", "| --- | --- |"]
        lines += [f"| {title} | {_cell(facts[name])} |" for name, title in titles.items()]
    lines += ["", "## Where every part comes from", "", "| part | origin |", "| --- | --- |"]
    lines += [f"| {name} | {origin} |" for name, origin in sorted(facts["origins"].items())]
    if facts["assumptions"]:
        lines += ["", "## It holds only if", "", *(f"- {line}" for line in facts["assumptions"])]
    lines += [
        "",
        "## What it does not cover",
        "",
        "- The shopper's own profile stays on the device and is no part of this model.",
        "- Facts about many shoppers at once, such as which items sell together, are what a model is for.",
        "- The shop's own systems: orders, web logs and accounts.",
    ]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return "not stated"
    text = rounded_up(value) if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
