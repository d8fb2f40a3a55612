from pathlib import Path

import pytest
import yaml

from proxy_app.commands.cli import main
from proxy_app.commands.migrate import TABLE, MigrationError, migrate

ENV = """\
# the ancestor's
MODEL_ID="BAAI/bge-m3"   # quoted
export EMBEDDING_DIMENSION=1024
NUM_REPLICAS=4
TEI_IMAGE=86-1.7
DTYPE=float16
AUTO_TRUNCATE=true
HOST_PORT=9000
QDRANT_HOST=qdrant
NGINX_UPSTREAM_URL=http://nginx:80
HUGGING_FACE_HUB_TOKEN=
CACHE_HASH_FUNCTION=md5
COMPOSE_PROJECT_NAME=x
"""


def test_every_known_name_becomes_a_variable() -> None:
    text, unknown = migrate(ENV)
    assert yaml.safe_load(text) == {
        "tei_model_id": "BAAI/bge-m3",
        "tei_dimension": 1024,
        "tei_gpus": 4,
        "tei_image": "86-1.7",
        "tei_dtype": "float16",
        "tei_auto_truncate": True,
        "proxy_port": 9000,
        "proxy_hash_function": "md5",
    }
    assert unknown == ["line 13: COMPOSE_PROJECT_NAME has no variable here; it stays as a comment"]
    assert "collide under md5" in text


def test_a_server_of_ones_own_stays() -> None:
    text, _ = migrate("QDRANT_HOST=10.0.0.7\nNGINX_UPSTREAM_URL=http://tei.example:8080/\r\n")
    assert yaml.safe_load(text) == {
        "qdrant_host": "10.0.0.7",
        "proxy_upstream_url": "http://tei.example:8080/",
    }


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("QDRANT_HOST=qdrant", "qdrant_host"),
        ("QDRANT_HOST=localhost", "qdrant_host"),
        ("NGINX_UPSTREAM_URL=http://nginx:80", "proxy_upstream_url"),
        ("NGINX_UPSTREAM_URL=http://localhost:8081", "proxy_upstream_url"),
    ],
)
def test_a_part_of_the_ancestors_own_gives_way_to_ours(line: str, name: str) -> None:
    text, _ = migrate(line)
    assert yaml.safe_load(text) is None
    assert f"# {name}: " in text


def test_a_tei_of_ones_own_on_this_machine_stays() -> None:
    text, _ = migrate("NGINX_UPSTREAM_URL=http://localhost:3000")
    assert yaml.safe_load(text) == {"proxy_upstream_url": "http://localhost:3000"}


def test_values_are_read_as_an_env_file_has_them() -> None:
    text, _ = migrate(
        "MODEL_ID='a # b'  # why\nREVISION = x#y # z\nTEI_IMAGE=\"\"\nQDRANT_COLLECTION=größe: 🙂"
    )
    assert yaml.safe_load(text) == {
        "tei_model_id": "a # b",
        "tei_revision": "x#y",
        "qdrant_collection": "größe: 🙂",
    }


def test_the_last_of_two_counts_and_a_byte_order_mark_is_skipped() -> None:
    text, _ = migrate("\ufeffHOST_PORT=1\nHOST_PORT=2\n")
    assert yaml.safe_load(text) == {"proxy_port": 2}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("NUM_REPLICAS=abc", "line 1: NUM_REPLICAS='abc': a whole number from 1 to 64"),
        ("HOST_PORT=99999", "line 1: HOST_PORT='99999'"),
        ("DTYPE=int4", "one of float16, float32, bfloat16"),
        ("just words", "line 1: NAME=value is wanted"),
        ('MODEL_ID="BAAI/bge-m3', 'line 1: MODEL_ID: a closing " at the end is wanted'),
        ("QDRANT_HOST=http://10.0.0.7", "without http:// and port"),
        ("QDRANT_HOST=10.0.0.7:6333", "without http:// and port"),
        ("NGINX_UPSTREAM_URL=tei:80", "a URL such as http"),
        ("OTHER=\x07", "control character"),
    ],
)
def test_what_cannot_be_meant_names_its_line(line: str, sentence: str) -> None:
    with pytest.raises(MigrationError, match="line 1") as error:
        migrate(line)
    assert sentence in str(error.value)


def test_the_command_writes_a_file_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / ".env", tmp_path / "group_vars" / "all.yml"
    source.write_text(ENV)
    arguments = ["migrate-env", str(source), "--output", str(target)]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*arguments, "--force"]) == 0


def test_without_an_output_it_prints_and_names_what_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / ".env"
    source.write_bytes(b"\xef\xbb\xbfHOST_PORT=9000\r\nMY_OWN=1\r\n")
    assert main(["migrate-env", str(source)]) == 0
    out, err = capsys.readouterr()
    assert yaml.safe_load(out) == {"proxy_port": 9000}
    assert "# MY_OWN=1\n" in out
    assert "line 2: MY_OWN" in err


def test_a_bad_value_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / ".env", tmp_path / "group_vars" / "all.yml"
    source.write_text("MODEL_ID=a/b\nNUM_REPLICAS=abc\n")
    assert main(["migrate-env", str(source), "--output", str(target)]) == 2
    assert not target.parent.exists()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_every_variable_of_the_table_exists() -> None:
    roles = Path(__file__).parents[2] / "roles"
    known = {
        name
        for path in roles.glob("*/meta/argument_specs.yml")
        for name in yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"]
    }
    assert {entry.name for entry in TABLE.values()} <= known
