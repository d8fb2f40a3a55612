"""Every file that lands on a host, rendered by Ansible and held against its program's own check."""

from __future__ import annotations

import grp
import hashlib
import json
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.roles import ROOT, TEMPLATES
from tests.not_run import needs

ANSIBLE = Path(sys.executable).with_name("ansible-playbook")
UNITS = "etc/systemd/system"
#: What earlier tasks and the look at the host make known, on a plausible host.
FACTS: dict[str, Any] = {
    "role_path": str(ROOT / "roles" / "any"),
    "__preflight_look": {"architecture": "x86_64", "cores": 4, "nginx": False},
    "__tei_instances": [{"name": "0", "device": "0", "port": 8100}],
    "__tei_instance": {"name": "0", "device": "0", "port": 8100},
    "__tei_commit": "0" * 40,
    "__tei_image_id": "1" * 64,
    "__proxy_workers": 4,
    "__proxy_wheel": {"stdout": json.dumps({"release": "1.0-abc", "wheel": "/w.whl"})},
    "__proxy_there": {"texts": {}, "found": []},
    "__qdrant_there": {"sums": {}, "found": []},
    "nginx_serving": [
        {"name": "one/0", "address": "127.0.0.1", "port": 8100, "namespace": "abc"},
        {"name": "two/0", "address": "192.0.2.7", "port": 8100, "namespace": "abc"},
        {"name": "two/1", "address": "192.0.2.7", "port": 8101, "namespace": "def"},
    ],
    "nginx_listed": {"namespace": "abc", "instances": []},
}
#: Every variable that changes what a template says, with what is hard to quote among them.
EVERYTHING: dict[str, Any] = {
    "tei_default_prompt": 'query: "$HOME" 100%',
    "tei_pooling": "mean",
    "tei_extra_args": {"tokenization-workers": 4},
    "tei_podman_extra_args": ["--ulimit", "nofile=1024:1024"],
    "tei_bind": "0.0.0.0",
    "qdrant_api_key": 'a "secret": {key}',
    "proxy_bind": "::1",
    "proxy_workers": 2,
    "proxy_namespace": "another word",
    "proxy_api_keys": [{"name": "alice", "sha256": "a" * 64}],
    "proxy_admin_key": "an administrator's $key",
    "proxy_settings": {"log_slow": 0.5},
    "proxy_gc_interval": "90min",
    "nginx_keepalive": 7,
    "nginx_timeout": 90,
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def render(root: Path, variables: dict[str, Any], templates: Path = TEMPLATES) -> Path:
    """Render every template below a folder, in one run of Ansible's."""
    found = (path for path in templates.rglob("*.j2") if not path.name.endswith(".part.j2"))
    places = [f"/{path.relative_to(templates)}" for path in sorted(found)]
    known = {
        **FACTS,
        "common_config_dir": str(root / "etc/embedrack"),
        "common_install_dir": str(root / "opt/embedrack"),
        "common_data_dir": str(root / "var/lib/embedrack"),
        "nginx_port": free_port(),
        **variables,
        "__common_templates": str(templates),
        "root": str(root),
        "templates": str(templates),
        "wanted": {place: place.removesuffix(".j2") for place in places},
        "access": {
            "owner": pwd.getpwuid(os.getuid()).pw_name,
            "group": grp.getgrgid(os.getgid()).gr_name,
        },
    }
    (root / "facts.json").write_text(json.dumps(known))
    (root / "hosts.yml").write_text(
        json.dumps({group: {"hosts": {"localhost": None}} for group in ("tei", "qdrant", "proxy")})
    )
    done = subprocess.run(
        [
            *(str(ANSIBLE), "-i", str(root / "hosts.yml"), "-e", f"@{root / 'facts.json'}"),
            *("-e", f"ansible_python_interpreter={sys.executable}"),
            str(ROOT / "tests" / "deploy" / "render.yml"),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return root


def certificate(folder: Path) -> None:
    """Make a certificate where the settings name one."""
    folder.mkdir(parents=True)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module", params=["defaults", "everything"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp(request.param)
    if request.param == "defaults":
        return render(root, {})
    certificate(root / "etc/embedrack/tls")
    files = {"proxy_tls_certificate": "given.pem", "proxy_tls_key": "given.key"}
    return render(root, EVERYTHING | files)


def check(*command: str, **options: Any) -> str:
    """Run a program's check; returns what it printed where it objects, "" where it does not."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    said = done.stdout + done.stderr
    return said or f"exit status {done.returncode}" if done.returncode else ""


def settings(path: Path) -> dict[str, str]:
    """Read a file of NAME=value lines as systemd does, values bare or quoted as JSON quotes."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    pairs = [line.split("=", 1) for line in lines]
    return {name: json.loads(value) if value[:1] == '"' else value for name, value in pairs}


def verify_units(host: Path, copies: Path) -> str:
    """Hold copies of the units, with programs that are there, against systemd's own check."""
    program = needs("systemd-analyze")
    shutil.copytree(host / UNITS, copies)
    (copies / "tei@.service").rename(copies / "tei@0.service")
    # The distribution's own unit, for the drop-in.
    (copies / "nginx.service").write_text("[Service]\nExecStart=/bin/true\n")
    command = re.compile(r"^(Exec\w+=-?)/\S+", re.MULTILINE)
    for unit in copies.glob("*.service"):
        unit.write_text(command.sub(r"\1/bin/true", unit.read_text()))
    units = [str(path) for path in sorted(copies.iterdir()) if path.is_file()]
    assert len(units) == 8
    # Of a line that it does not know it warns, and exits with 0.
    done = subprocess.run(
        [program, "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_systemd_takes_the_units(host: Path, tmp_path: Path) -> None:
    assert verify_units(host, tmp_path / "units") == ""


def test_programs_of_the_units_are_those_that_are_installed(host: Path) -> None:
    text = "".join(path.read_text() for path in (host / UNITS).glob("*.service"))
    programs = set(re.findall(r"^Exec\w+=-?(/\S+)", text, re.MULTILINE))
    own = {str(Path(one).relative_to(host)) for one in programs if one.startswith(str(host))}
    assert programs - {f"{host}/{one}" for one in own} == {"/usr/bin/curl", "/usr/bin/podman"}
    assert own == {
        "opt/embedrack/tei-wait",
        "opt/embedrack/proxy/1.0-abc/venv/bin/embedrack",
        "opt/embedrack/qdrant/1.18.3-unknown/qdrant",
    }


def test_units_that_are_no_container_s_share_their_hardening(host: Path) -> None:
    part = (TEMPLATES / UNITS / "hardening.part.j2").read_text().partition("\n")[2]
    assert "SystemCallFilter=" in part
    for name in ("embedrack-proxy", "embedrack-gc", "qdrant"):
        assert part in (host / UNITS / f"{name}.service").read_text()


def test_systemd_refuses_a_unit_with_a_wrong_line(host: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(host / UNITS, wrong / UNITS)
    unit = wrong / UNITS / "qdrant.service"
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSytem=strict"))
    assert "ProtectSytem" in verify_units(wrong, tmp_path / "units")


def nginx(host: Path, folder: Path) -> str:
    """Hold the balancer's configuration against nginx's own check, below a folder of its own."""
    folder.mkdir()
    frame = folder / "nginx.conf"
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{one}_temp_path {folder}/{one};" for one in places)
    included = f"include {host}/etc/nginx/conf.d/*.conf;"
    frame.write_text(
        f"pid {folder}/pid; error_log stderr; events {{}} http {{ {temporary} {included} }}"
    )
    return check(needs("nginx"), "-t", "-q", "-p", str(folder), "-c", str(frame))


def test_nginx_takes_the_balancer(host: Path, tmp_path: Path) -> None:
    assert nginx(host, tmp_path / "nginx") == ""


def test_nginx_refuses_a_wrong_balancer(tmp_path: Path) -> None:
    place = "etc/nginx/conf.d/embedrack.conf"
    templates = tmp_path / "templates"
    (templates / place).parent.mkdir(parents=True)
    wrong = (TEMPLATES / f"{place}.j2").read_text().replace("least_conn;", "least_con;")
    (templates / f"{place}.j2").write_text(wrong)
    (tmp_path / "root").mkdir()
    said = nginx(render(tmp_path / "root", {}, templates), tmp_path / "nginx")
    assert 'unknown directive "least_con"' in said


def proxy_check(environment: dict[str, str]) -> str:
    """Hold settings against the proxy's own check."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("EMBEDRACK_")}
    command = (sys.executable, "-m", "proxy_app", "check")
    return check(*command, cwd=ROOT, env=own | environment)


def test_the_proxy_takes_its_settings(host: Path) -> None:
    found = settings(host / "etc/embedrack/proxy.env")
    assert proxy_check(found) == ""
    assert "EMBEDRACK_PORTS" in proxy_check(found | {"EMBEDRACK_PORTS": "1"})
    assert "EMBEDRACK_PORT" in proxy_check(found | {"EMBEDRACK_PORT": "many"})


def test_the_shell_takes_what_waits_for_an_instance(host: Path) -> None:
    assert check("sh", "-n", str(host / "opt/embedrack/tei-wait")) == ""


def test_an_instance_s_settings_are_its_flags_and_its_unit_s_hash(host: Path) -> None:
    found = settings(host / "etc/embedrack/tei/instance.env")
    flags = shlex.split(found["TEI_ARGS"])
    assert flags[flags.index("--port") + 1] == "8100"
    assert "nvidia.com/gpu=0" in found["TEI_PODMAN_ARGS"]
    assert flags[flags.index("--model-id") + 1].endswith("0" * 40)
    if "--default-prompt" in flags:
        prompt = flags[flags.index("--default-prompt") + 1]
        assert prompt == EVERYTHING["tei_default_prompt"]
    unit = (host / UNITS / "tei@.service").read_bytes()
    text = (host / "etc/embedrack/tei/instance.env").read_text()
    assert f"# Unit: {hashlib.sha256(unit).hexdigest()}\n" in text


def test_qdrant_s_settings_are_what_they_should_be(host: Path) -> None:
    found = yaml.safe_load((host / "etc/embedrack/qdrant.yaml").read_text())
    assert set(found) == {"log_level", "telemetry_disabled", "service", "storage"}
    assert found["telemetry_disabled"] is True
    assert found["service"]["http_port"] == 6333
    assert found["service"].get("api_key", "") in ("", EVERYTHING["qdrant_api_key"])
    assert all(path.startswith(f"{host}/var/lib") for path in found["storage"].values())


def test_the_proxy_s_list_is_json(host: Path) -> None:
    found = json.loads((host / "etc/embedrack/instances.json").read_text())
    assert found == FACTS["nginx_listed"]


def test_the_key_that_is_made_is_long_and_plain(host: Path) -> None:
    text = (host / "etc/embedrack/admin.key").read_text()
    assert re.fullmatch(r"[A-Za-z0-9]{40}\n", text)


def test_apt_takes_nvidia_s_repository(host: Path, tmp_path: Path) -> None:
    sources = host / "etc/apt/sources.list.d"
    options = [f"Dir::Etc::SourceParts={sources}", "Dir::Etc::SourceList=/dev/null"]
    command = [needs("apt-get"), "indextargets", "--no-release-info", "--format", "$(URI)"]
    done = subprocess.run(
        [*command, *(word for option in options for word in ("-o", option))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "https://nvidia.github.io/libnvidia-container/stable/deb/amd64/Packages" in done.stdout


def test_nvidia_s_settings_are_read_as_systemd_reads_them(host: Path) -> None:
    found = settings(host / "etc/nvidia-container-toolkit/nvidia-cdi-refresh.env")
    assert found == {"NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS": "no-additional-gids-for-device-nodes"}


def test_every_file_says_that_it_is_ours(host: Path) -> None:
    left = {"etc/embedrack/instances.json", "etc/embedrack/admin.key", "etc/embedrack/tls"}
    for path in sorted(host.glob("*/**/*")):
        place = str(path.relative_to(host))
        if path.is_file() and not place.startswith(tuple(left)):
            assert "Ansible managed (embedrack)" in path.read_text(), place
