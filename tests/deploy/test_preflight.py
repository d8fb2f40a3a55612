"""What preflight makes of a host, on what programs print there."""

from types import ModuleType

import pytest

from library import embedrack_inspect


@pytest.fixture(scope="module")
def inspect_host() -> ModuleType:
    return embedrack_inspect


PRINTED = "0, GPU-aaaa, 9.0\n1, GPU-bbbb, 9.0\n3, GPU-dddd, 8.6\n"


def test_gpus_are_read_as_nvidia_smi_prints_them(inspect_host: ModuleType) -> None:
    gpus = inspect_host.parse_gpus(PRINTED)
    assert [gpu["index"] for gpu in gpus] == [0, 1, 3]
    assert gpus[2] == {"index": 3, "uuid": "GPU-dddd", "capability": "8.6"}


def test_noise_is_no_gpu(inspect_host: ModuleType) -> None:
    assert inspect_host.parse_gpus("No devices were found\n\nError, 1\n") == []


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("all", [0, 1, 3]),
        (2, [0, 1]),
        ("2", [0, 1]),
        ([3, 0], [3, 0]),
        (["GPU-bbbb"], [1]),
        ("3,1", [3, 1]),
    ],
)
def test_gpus_are_chosen(inspect_host: ModuleType, wanted: object, chosen: list[int]) -> None:
    found, findings = inspect_host.choose(wanted, inspect_host.parse_gpus(PRINTED))
    assert [gpu["index"] for gpu in found] == chosen
    assert findings == []


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (0, "at least one GPU"),
        (4, "has 3 GPUs"),
        ([2], "GPU 2, which is not there; present: 0, 1, 3"),
        ([0, "GPU-aaaa"], "names GPU 0 twice"),
        ([], "`all`, a number, or a list"),
        (None, "`all`, a number, or a list"),
    ],
)
def test_wrong_gpus_are_named(inspect_host: ModuleType, wanted: object, sentence: str) -> None:
    _, findings = inspect_host.choose(wanted, inspect_host.parse_gpus(PRINTED))
    assert sentence in findings[0]


def test_an_old_python_is_named(inspect_host: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_host.sys, "version_info", (3, 9))
    findings = inspect_host.check_programs({"proxy_here": True, "tei_here": False})
    assert "Python 3.9 is too old for the proxy: 3.11 or newer is wanted" in findings[-1]


def test_two_services_on_one_port_are_refused(inspect_host: ModuleType) -> None:
    findings = inspect_host.check_ports([("proxy_port", 48080), ("nginx_port", 48080)])
    assert findings == ["proxy_port and nginx_port are both 48080; change one of them"]


def test_installed_packages_are_read_as_dpkg_query_prints_them(inspect_host: ModuleType) -> None:
    printed = "curl installed\nnginx config-files\npodman installed\ncurl installed\n"
    assert inspect_host.parse_packages(printed) == ["curl", "podman"]
    assert inspect_host.parse_packages("") == []
