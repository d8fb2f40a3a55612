"""Brings folders and files of a host into a state at once, and says what was there before."""

from __future__ import annotations

import glob
import grp
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: embedrack_files
short_description: Brings folders and files of a host into a state, and says what was there before
description:
  - Makes folders, writes files, removes paths, and reads what else is asked for, in one call.
  - The former files are returned as I(files) takes them, so that a change can be undone.
  - In check mode nothing is written, and the reply is the same.
options:
  folders:
    description: Folders to make, with owner, group and mode.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {type: path, required: true, description: The folder.}
      owner: {type: str, default: root, description: Its owner.}
      group: {type: str, default: root, description: Its group.}
      mode: {type: str, required: true, description: Its mode in octal digits.}
  files:
    description: Files to write, with owner, group and mode.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {type: path, required: true, description: The file.}
      content: {type: str, required: true, description: Its whole content.}
      owner: {type: str, default: root, description: Its owner.}
      group: {type: str, default: root, description: Its group.}
      mode: {type: str, required: true, description: Its mode in octal digits.}
      force: {type: bool, default: true, description: Whether a file that is there is replaced.}
      unit: {type: str, default: "", description: The unit that reads the file when it starts.}
  absent:
    description: Files and folders to remove, folders with all that is in them.
    type: list
    elements: path
    default: []
  read:
    description: Files, or patterns of files, whose content is returned.
    type: list
    elements: path
    default: []
  find:
    description: Patterns of paths; those that exist are returned.
    type: list
    elements: path
    default: []
  sums:
    description: Files whose SHA-256 is returned.
    type: list
    elements: path
    default: []
  units:
    description: Units of systemd whose states are returned.
    type: list
    elements: str
    default: []
author: Embedrack
"""
EXAMPLES = r"""
- name: Write the unit
  embedrack_files:
    files:
      - path: /etc/systemd/system/one.service
        content: "{{ lookup('ansible.builtin.template', 'one.service.j2') }}"
        mode: "0644"
    units: [one.service]
  register: written
- name: Put the former unit back
  embedrack_files:
    files: "{{ written.former }}"
"""
RETURN = r"""
changes: {description: The paths that changed., type: list, returned: always}
former: {description: The files that were there before a change., type: list, returned: always}
texts: {description: The content by path of what was read., type: dict, returned: always}
found: {description: The paths that were found., type: list, returned: always}
sums: {description: The SHA-256 by path., type: dict, returned: always}
units:
  description: By unit, whether it is active and starts with the host.
  type: dict
  returned: always
stale:
  description: The units that run and started before a file of theirs was written.
  type: list
  returned: always
reload:
  description: Whether systemd must read its files again, for what changed now or before.
  type: bool
  returned: always
"""

#: Where systemd reads our units.
UNITS = "/etc/systemd/system/"
ACCESS = {
    "path": {"type": "path", "required": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str", "required": True},
}
CONTENT = {
    "content": {"type": "str", "required": True},
    "force": {"type": "bool", "default": True},
    "unit": {"type": "str", "default": ""},
}
PATHS = {"type": "list", "elements": "path", "default": []}
ARGUMENTS = {
    "folders": {"type": "list", "elements": "dict", "default": [], "options": ACCESS},
    "files": {"type": "list", "elements": "dict", "default": [], "options": {**ACCESS, **CONTENT}},
    "absent": PATHS,
    "read": PATHS,
    "find": PATHS,
    "sums": PATHS,
    "units": {"type": "list", "elements": "str", "default": []},
}


def access(path: str) -> dict[str, str]:
    """Return owner, group and mode of a path, as the options name them."""
    seen = os.stat(path)
    try:
        owner = pwd.getpwuid(seen.st_uid).pw_name
    except KeyError:
        owner = str(seen.st_uid)
    try:
        group = grp.getgrgid(seen.st_gid).gr_name
    except KeyError:
        group = str(seen.st_gid)
    return {"owner": owner, "group": group, "mode": "%04o" % stat.S_IMODE(seen.st_mode)}


def wanted(entry: dict[str, Any]) -> dict[str, str]:
    """Return owner, group and mode that an entry asks for."""
    mode = "%04o" % int(entry["mode"], 8)
    return {"owner": entry["owner"], "group": entry["group"], "mode": mode}


def give(path: str, entry: dict[str, Any]) -> None:
    """Give a path the owner, group and mode of an entry."""
    shutil.chown(path, entry["owner"], entry["group"])
    os.chmod(path, int(entry["mode"], 8))


def text(path: str) -> str:
    """Return a file's content; bytes that are no UTF-8 stay as surrogates."""
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read()


def put_folder(entry: dict[str, Any], dry: bool) -> bool:
    """Make a folder as it is wanted; returns whether that is a change."""
    path = entry["path"]
    if os.path.isdir(path) and access(path) == wanted(entry):
        return False
    if not dry:
        os.makedirs(path, exist_ok=True)
        give(path, entry)
    return True


def put_file(entry: dict[str, Any], dry: bool) -> bool:
    """Write a file as it is wanted; returns whether that is a change."""
    path = entry["path"]
    there = os.path.lexists(path)
    if there and not entry["force"]:
        return False
    same = there and not os.path.islink(path) and text(path) == entry["content"]
    if same and access(path) == wanted(entry):
        return False
    if dry:
        return True
    if same:
        give(path, entry)
        return True
    # Beside its place and renamed, so that nobody reads half of it; nobody else may open it before
    # it has its owner.
    handle, partial = tempfile.mkstemp(prefix=".embedrack-", dir=os.path.dirname(path))
    try:
        content = entry["content"].encode("utf-8", "surrogateescape")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        give(partial, entry)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
    return True


def remove(path: str, dry: bool) -> bool:
    """Remove a path; returns whether that is a change."""
    if not os.path.lexists(path):
        return False
    if not dry:
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    return True


def matches(patterns: list[str]) -> list[str]:
    """Return the paths that exist of some patterns, sorted."""
    return sorted({path for pattern in patterns for path in glob.glob(pattern)})


def sha256(path: str) -> str:
    """Return the SHA-256 of a file."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def parse_units(shown: str) -> list[dict[str, str]]:
    """Read what `systemctl show` prints: a block of properties for each unit, in order."""
    blocks = shown.strip("\n").split("\n\n")
    return [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks]


def look_at_units(names: list[str]) -> dict[str, dict[str, str]]:
    """Return the properties of units by their names."""
    if not names:
        return {}
    fields = "--property=ActiveState,UnitFileState,NeedDaemonReload,InactiveExitTimestampMonotonic"
    command = ["systemctl", "show", fields, *names]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    blocks = parse_units(done.stdout.decode())
    return {name: blocks[index] for index, name in enumerate(names)}


def starts_by_itself(unit: dict[str, str]) -> bool:
    """Say whether a unit is active and starts with the host."""
    return (unit["ActiveState"], unit.get("UnitFileState")) == ("active", "enabled")


def outdated(entry: dict[str, Any], units: dict[str, dict[str, str]]) -> bool:
    """Say whether the unit that reads a file runs since before the file was written."""
    unit = units.get(entry["unit"], {})
    if unit.get("ActiveState") != "active" or not os.path.exists(entry["path"]):
        return False
    boot = time.time() - time.monotonic()
    started = boot + int(unit["InactiveExitTimestampMonotonic"]) / 1e6
    return started < os.stat(entry["path"]).st_mtime


def former_file(path: str) -> dict[str, Any]:
    """Return a file as the option `files` takes it."""
    return {"path": path, "content": text(path), **access(path)}


def bring(want: dict[str, Any], dry: bool) -> dict[str, Any]:
    """Bring everything into the state that is wanted, and return the reply."""
    changes, former, differences = [], [], []
    changes += [one["path"] for one in want["folders"] if put_folder(one, dry)]
    for entry in want["files"]:
        path = entry["path"]
        before = former_file(path) if os.path.isfile(path) else None
        if before:
            former.append(before)
        if put_file(entry, dry):
            changes.append(path)
            differences.append(
                {
                    "before_header": path,
                    "after_header": path,
                    "before": before["content"] if before else "",
                    "after": entry["content"],
                }
            )
    changes += [path for path in want["absent"] if remove(path, dry)]
    readers = {entry["unit"] for entry in want["files"] if entry["unit"]}
    units = look_at_units(sorted(readers.union(want["units"])))
    return {
        "changed": bool(changes),
        "changes": changes,
        "former": former,
        "diff": differences,
        "texts": {path: text(path) for path in matches(want["read"]) if os.path.isfile(path)},
        "found": matches(want["find"]),
        "sums": {path: sha256(path) for path in want["sums"] if os.path.isfile(path)},
        "units": {name: starts_by_itself(units[name]) for name in want["units"]},
        "stale": sorted({entry["unit"] for entry in want["files"] if outdated(entry, units)}),
        "reload": any(path.startswith(UNITS) for path in changes)
        or any(unit["NeedDaemonReload"] == "yes" for unit in units.values()),
    }


def main() -> None:
    """Run as a module of Ansible's."""
    # The arguments are whole files, which belong in no journal.
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True, no_log=True)
    try:
        module.exit_json(**bring(module.params, module.check_mode))
    except (OSError, LookupError, ValueError, subprocess.CalledProcessError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
