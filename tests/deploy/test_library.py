"""The modules that run on hosts, by their functions."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from library import embedrack_ask, embedrack_doctor, embedrack_files

OWN = {
    "owner": pwd.getpwuid(os.getuid()).pw_name,
    "group": grp.getgrgid(os.getgid()).gr_name,
}
NOTHING: dict[str, list[Any]] = {
    name: [] for name in ("folders", "files", "absent", "read", "find", "sums", "units")
}


def file(path: Path, content: str, mode: str = "0640", **more: Any) -> dict[str, Any]:
    entry = {"path": str(path), "content": content, "mode": mode, "force": True, "unit": ""}
    return entry | OWN | more


def bring(dry: bool = False, **want: Any) -> dict[str, Any]:
    return embedrack_files.bring(NOTHING | want, dry)


def test_folders_and_files_are_made_once(tmp_path: Path) -> None:
    folder, place = tmp_path / "a" / "b", tmp_path / "a" / "b" / "one"
    want: dict[str, Any] = {
        "folders": [{"path": str(folder), "mode": "0700", **OWN}],
        "files": [file(place, "text\n")],
    }
    reply = bring(**want)
    assert reply["changes"] == [str(folder), str(place)]
    assert reply["former"] == []
    assert place.read_text() == "text\n"
    assert (folder.stat().st_mode & 0o7777, place.stat().st_mode & 0o7777) == (0o700, 0o640)
    assert bring(**want)["changed"] is False
    assert [path.name for path in folder.iterdir()] == ["one"]


def test_check_mode_says_the_same_and_writes_nothing(tmp_path: Path) -> None:
    place, gone = tmp_path / "one", tmp_path / "gone"
    place.write_text("former")
    place.chmod(0o600)
    gone.touch()
    want: dict[str, Any] = {
        "files": [file(place, "new"), file(tmp_path / "two", "")],
        "absent": [str(gone)],
    }
    dry = bring(dry=True, **want)
    assert (place.read_text(), gone.exists()) == ("former", True)
    assert not (tmp_path / "two").exists()
    assert dry["changes"] == bring(**want)["changes"] == [str(place), f"{tmp_path}/two", str(gone)]
    assert dry["diff"][0]["before"] == "former"
    assert dry["diff"][0]["after"] == "new"


def test_what_was_there_can_be_put_back_with_its_mode(tmp_path: Path) -> None:
    place = tmp_path / "one"
    place.write_bytes(b"not UTF-8: \xff, without a newline")
    place.chmod(0o604)
    reply = bring(files=[file(place, "new\n", "0600")])
    assert place.read_text() == "new\n"
    former = [{"force": True, "unit": "", **entry} for entry in reply["former"]]
    assert bring(files=former)["changed"] is True
    assert place.read_bytes() == b"not UTF-8: \xff, without a newline"
    assert place.stat().st_mode & 0o7777 == 0o604


def test_a_mode_alone_is_a_change(tmp_path: Path) -> None:
    place = tmp_path / "one"
    place.write_text("text")
    place.chmod(0o666)
    written = place.stat().st_mtime_ns
    assert bring(files=[file(place, "text")])["changes"] == [str(place)]
    assert place.stat().st_mode & 0o7777 == 0o640
    assert place.stat().st_mtime_ns == written


def test_a_file_without_force_stays(tmp_path: Path) -> None:
    place = tmp_path / "key"
    assert bring(files=[file(place, "made", force=False)])["changed"] is True
    assert bring(files=[file(place, "another", force=False)])["changed"] is False
    assert place.read_text() == "made"


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(LookupError):
        bring(files=[file(tmp_path / "one", "text", owner="no-such-user")])
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    bring(files=[file(tmp_path / "link", "ours")])
    assert (tmp_path / "target").read_text() == "theirs"
    assert not (tmp_path / "link").is_symlink()


def test_folders_are_removed_with_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    bring(absent=[f"{tmp_path}/link"])
    assert (tmp_path / "a" / "b" / "one").exists()
    assert bring(absent=[f"{tmp_path}/a", f"{tmp_path}/none"])["changes"] == [f"{tmp_path}/a"]


def test_what_is_read_is_as_it_is_after_the_change(tmp_path: Path) -> None:
    place = tmp_path / "one.env"
    reply = bring(
        files=[file(place, "new")],
        read=[f"{tmp_path}/*.env", f"{tmp_path}/none"],
        find=[f"{tmp_path}/*"],
        sums=[str(place), f"{tmp_path}/none"],
    )
    assert reply["texts"] == {str(place): "new"}
    assert reply["found"] == [str(place)]
    assert reply["sums"] == {str(place): hashlib.sha256(b"new").hexdigest()}


#: As `systemctl show` prints it for three units, the second of which is not there.
SHOWN = """\
InactiveExitTimestampMonotonic={started}
ActiveState=active
UnitFileState=enabled
NeedDaemonReload=no

InactiveExitTimestampMonotonic=0
ActiveState=inactive
UnitFileState=
NeedDaemonReload=no

InactiveExitTimestampMonotonic={started}
ActiveState=active
UnitFileState=disabled
NeedDaemonReload=yes
"""


@pytest.fixture
def systemctl(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stand in for systemctl: units that started a minute ago."""
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        asked.append(command)
        started = int((time.monotonic() - 60) * 1e6)
        return subprocess.CompletedProcess(command, 0, SHOWN.format(started=started).encode())

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_units_are_told_apart(systemctl: list[list[str]]) -> None:
    reply = bring(units=["a.service", "b.service", "c.service"])
    assert reply["units"] == {"a.service": True, "b.service": False, "c.service": False}
    assert reply["reload"] is True
    assert systemctl[0][-3:] == ["a.service", "b.service", "c.service"]


def test_a_unit_that_runs_since_before_its_file_is_stale(
    tmp_path: Path, systemctl: list[list[str]]
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for path in (old, new):
        path.write_text("text")
        path.chmod(0o640)
    an_hour_ago = time.time() - 3600
    os.utime(old, (an_hour_ago, an_hour_ago))
    files = [file(old, "text", unit="a.service"), file(new, "text", unit="c.service")]
    reply = bring(files=files, units=["b.service"])
    assert systemctl[0][-3:] == ["a.service", "b.service", "c.service"]
    assert reply["changed"] is False
    assert reply["stale"] == ["c.service"]


def test_no_unit_is_asked_for_where_none_is_named(systemctl: list[list[str]]) -> None:
    assert bring()["units"] == {}
    assert systemctl == []


ENV = 'EMBEDRACK_PORT="1"\nEMBEDRACK_ADMIN_KEY="a \\"quoted\\" key"\nEMBEDRACK_TLS_KEY=""\n'


def test_settings_are_read_as_they_are_written() -> None:
    assert embedrack_ask.setting(ENV, "PORT") == "1"
    assert embedrack_ask.setting(ENV, "TLS_KEY") == ""
    assert embedrack_ask.setting(ENV, "QDRANT_URL") == ""
    assert embedrack_ask.headers_of(ENV) == {"Authorization": 'Bearer a "quoted" key'}
    assert embedrack_ask.headers_of("") == {}
    assert embedrack_ask.local("0.0.0.0:8080") == "127.0.0.1:8080"
    assert embedrack_ask.local("[::]:8080") == "[::1]:8080"


def answer(monkeypatch: pytest.MonkeyPatch, *replies: tuple[bytes, str]) -> None:
    left = iter(replies)
    monkeypatch.setattr(embedrack_ask, "embed", lambda *_: (*next(left), 1.0))


def test_a_miss_and_a_hit_are_held_against_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, (b"[[1]]", "miss; hits=0"), (b"[[1]]", "hit; hits=1"))
    assert embedrack_ask.miss_and_hit("", {}, 0)[0] == b"[[1]]"
    answer(monkeypatch, (b"[[1]]", "miss"), (b"[[2]]", "hit"))
    with pytest.raises(embedrack_ask.Unwell, match="floats"):
        embedrack_ask.miss_and_hit("", {}, 0)
    answer(monkeypatch, (b"[[1]]", "hit"))
    with pytest.raises(embedrack_ask.Unwell, match="no miss"):
        embedrack_ask.miss_and_hit("", {}, 0)


def test_a_store_that_never_has_it_is_named_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedrack_ask, "WAITS", (0, 0, 0))
    answer(monkeypatch, *[(b"[[1]]", "miss")] * 6)
    with pytest.raises(embedrack_ask.Unwell, match="is the store away"):
        embedrack_ask.ask("http://127.0.0.1:9", {})


def test_where_nothing_is_deployed_the_endpoint_is_missed(tmp_path: Path) -> None:
    with pytest.raises(embedrack_ask.Unwell, match="no endpoint is deployed here"):
        embedrack_ask.verify(tmp_path, tmp_path / "no.socket")


def test_the_doctor_finds_that_nothing_is_deployed(tmp_path: Path) -> None:
    [found] = embedrack_doctor.look(tmp_path, ["instances", "store", "balancer"])
    assert (found["check"], found["ok"]) == ("deployment", False)
    assert "site.yml" in str(found["remedy"])


def test_the_doctor_looks_at_each_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tei").mkdir()
    (tmp_path / "tei" / "0.env").write_text("TEI_HEALTH=http://127.0.0.1:9/health\n")
    monkeypatch.setattr(embedrack_doctor, "unit", lambda name: {"check": f"unit {name}", "ok": 1})
    found = embedrack_doctor.look(tmp_path, ["instances"])
    assert [one["check"] for one in found] == ["unit tei@0.service", "instance 0"]
    assert found[1]["ok"] is False
    assert "http://127.0.0.1:9/health" in str(found[1]["seen"])
    assert "systemctl restart tei@0" in str(found[1]["remedy"])


def test_a_finding_that_is_ok_has_no_remedy() -> None:
    assert embedrack_doctor.finding("a", True, "seen", "do")["remedy"] == ""
    assert embedrack_doctor.finding("a", False, "seen", "do")["remedy"] == "do"
