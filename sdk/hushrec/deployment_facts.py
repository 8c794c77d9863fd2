"""What a bundle may say about the shoppers behind it, as facts for a public page.

The fields are those that a differential privacy deployment registry asks for (Dwork, Kohli, Mulligan 2019,
"Differential privacy in practice: expose your epsilons!", section 4). Everything comes from the bundle itself: the
origin of each part, and the guarantee that its card carries. One private part and there is no guarantee.
"""

from typing import Any

from hushrec.manifest import NO_GUARANTEE, Manifest

__all__ = ["deployment_facts", "facts_page"]

_TITLES = {
    "headline": "What holds for this bundle",
    "epsilon": "Epsilon",
    "delta": "Delta",
    "unit": "Whose presence is hidden (privacy unit)",
    "adjacency": "Neighbouring data",
    "mechanism": "Mechanism",
    "trust": "Who is trusted",
    "model_version": "Model version",
}
_WITHOUT = {
    "epsilon": "inf",
    "delta": 0.0,
    "unit": "nobody's",
    "adjacency": "none",
    "mechanism": "none: at least one part comes from the log without differential privacy",
    "trust": "whoever holds the bundle may learn about single shoppers in the log",
    "assumptions": [],
    "slack": {},
}


def deployment_facts(manifest: Manifest) -> dict[str, Any]:
    """Facts of a bundle, JSON values.

    Args:
        manifest: Of a bundle whose files were verified.

    Returns:
        The headline, a guarantee (epsilon "inf" where there is none), the origin of every file, and what is not
        covered.
    """
    origins = {name: info.origin for name, info in manifest.files.items()}
    private = sorted(name for name, origin in origins.items() if origin == "private")
    stated = manifest.card.get("privacy")
    kept = stated if isinstance(stated, dict) and not private else None
    headline = manifest.card.get("headline", NO_GUARANTEE)
    return {
        "headline": NO_GUARANTEE if private else headline,
        **_WITHOUT,
        **(kept or ({"mechanism": "no part comes from the log", "epsilon": 0.0} if _all_public(origins) else {})),
        "model_version": manifest.model_version,
        "origins": origins,
        "private_parts": private,
    }


def facts_page(facts: dict[str, Any]) -> str:
    """The page, in Markdown.

    Args:
        facts: From `deployment_facts`.
    """
    lines = [f"# Privacy of this model: {facts['headline']}", ""]
    lines += ["| | |", "| --- | --- |"]
    lines += [f"| {title} | {_cell(facts[name])} |" for name, title in _TITLES.items()]
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


def _all_public(origins: dict[str, str]) -> bool:
    return all(origin == "public" for origin in origins.values())


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
