"""Writes docs/variables.md from the roles' argument specifications: `python scripts/variables.py`.

With `--check` it changes nothing and exits with 1 where the page is out of date.
"""

import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from proxy_app.commands.migrate import TABLE  # noqa: E402  (the checkout is not installed)

PAGE = ROOT / "docs" / "variables.md"
ROLES = ("tei", "proxy", "qdrant", "nginx", "nvidia_toolkit", "common", "preflight")
HEAD = """\
# Variables of the deployment

Set them in `inventory/group_vars/all.yml`; `ansible-playbook site.yml` refuses a name that is not
on this page, before it touches anything. Secrets belong into a vault
(`ansible-vault encrypt_string`). This page is generated: `python scripts/variables.py`.
"""
TAIL = """\
## Coming from the ancestor's `.env`

`embedrack migrate-env .env --output inventory/group_vars/all.yml` does this table.

| `.env` | variable | what differs |
|---|---|---|
"""


def page() -> str:
    """Return the whole page."""
    text = [HEAD]
    for role in ROLES:
        place = ROOT / "roles" / role / "meta" / "argument_specs.yml"
        main = yaml.safe_load(place.read_text())["argument_specs"]["main"]
        text += [f"## {role}: {main['short_description'].lower()}\n"]
        text += ["| variable | type | default | meaning |", "|---|---|---|---|"]
        for name, option in main["options"].items():
            kind = option["type"]
            if "choices" in option:
                kind = " \\| ".join(f"`{choice}`" for choice in option["choices"] if choice)
            default = shown(option["default"])
            meaning = " ".join(str(option["description"]).split()).replace("|", "\\|")
            text.append(f"| `{name}` | {kind} | {default} | {meaning} |")
        text.append("")
    text.append(TAIL.rstrip("\n"))
    text += [f"| `{old}` | `{new.name}` | {new.comment} |" for old, new in TABLE.items()]
    return "\n".join(text) + "\n"


def shown(value: object) -> str:
    """Return a default as it would be written."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "empty" if value in ("", [], {}) else f"`{value}`".replace("|", "\\|")


def main(check: bool) -> int:
    """Write the page, or tell whether it is as it would be written."""
    wanted = page()
    if check:
        return 0 if PAGE.exists() and PAGE.read_text() == wanted else 1
    PAGE.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
