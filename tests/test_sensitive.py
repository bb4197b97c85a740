"""What may hold a secret, by name and by content; and what looks like it and is none."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from lambdeno.sensitive import GROUPS, secret

ROOT = Path(__file__).parent.parent
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
RSA = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n"

SECRETS = (
    *(".env", ".ENV", ".env.production", "prod.env", ".envrc", ".env.example.local", ".dev.vars"),
    *(".netrc", "_netrc", ".git-credentials", ".config/gh/hosts.yml", ".htpasswd", "secrets.yaml"),
    *(".ssh/config", "id_rsa", "ID_RSA", "id_ed25519", "deploy_rsa", "id_ecdsa_sk", "key.ppk"),
    *("a.p12", "a.pfx", "a.PFX", "a.jks", "a.keystore", "a.p8", ".gnupg/x", "vault.kdbx"),
    *(
        ".aws/credentials",
        ".azure/token",
        ".config/gcloud/x",
        ".oci/config",
        ".boto",
    ),
    *("my-app-firebase-adminsdk-x.json", "credentials.csv", "ada_accessKeys.csv", ".s3cfg"),
    *(".npmrc", ".yarnrc.yml", ".pypirc", ".cargo/credentials.toml", ".m2/settings.xml", "NuGet.Config"),
    *(".docker/config.json", ".dockercfg", ".kube/config", "kubeconfig", "prod.kubeconfig"),
    *(
        "terraform.tfstate",
        "terraform.tfstate.backup",
        "prod.tfvars",
        "prod.auto.tfvars.json",
        ".terraform/x",
    ),
    *(
        ".env~",
        "#.env#",
        ".env-prod",
        ".env_production",
        ".env copy",
        ".env (1)",
        ".env.swp",
        ".env.prod.bak~",
    ),
    *(".netrc~", ".npmrc.bak", ".htpasswd.old", ".envrc.local", ".secrets.toml", "kubeconfig.yaml"),
    *(
        "id_rsa.orig",
        "id_rsa (2)",
        "secrets copy.json",
        "secrets (1).yml",
        ".secrets.json.swp",
        "secring.old",
    ),
    *(".aws copy/credentials", ".ssh.bak/config", "prod - copy.env", "terraform.tfstate~", "Secrets.YAML.1"),
    *(".pgpass", ".my.cnf", ".bash_history", ".psql_history", ".node_repl_history", "key4.db"),
)
NONE = (
    *(
        ".env.example",
        ".env.sample",
        ".env.template",
        "example.env",
        "web/.env.dist",
        "env.ts",
        "environment",
    ),
    *("id_rsa.pub", "gcloud/client.ts", "config/git.json", "docker/config.json", "known_hosts", "kube.ts"),
    *("terraform.tf", "data.csv", "schema.sql", "history.md", "secrets.ts", "aws/credentials.ts", "npmrc"),
    *(
        ".env.d.ts",
        "web/.env.example~",
        ".env-sample",
        ".envrc.template",
        ".env_dist.bak",
        "service-account.schema.json",
    ),
    *(
        "sensor_rsa/readings.csv",
        "data/test.env/readme.txt",
        "curve_ed25519/a.csv",
        "id_rsa.pub~",
        "notes~",
        "~",
        "#",
    ),
    *("environment (1)", "copy", ".copy", "report copy.csv", "kubeconfigs.yaml"),
    *("a.env.ts", "keys.json", "ca.der", ".gitignore", "monkey", "book.keystore.md"),
)


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("above", ["", "data/deep/"])
def test_a_name_that_scanners_know_is_a_secrets(name: str, above: str, tmp_path: Path) -> None:
    """In whatever folder, in whatever case, whatever is in it."""
    (tmp_path / "file").write_text("x")
    found = secret(above + name, tmp_path / "file")
    assert found
    assert f"{above}{name}".startswith(found.name.removesuffix("/"))
    assert found.group in GROUPS


@pytest.mark.parametrize("name", NONE)
def test_a_name_that_resembles_one_is_none(name: str, tmp_path: Path) -> None:
    """Examples by convention, public halves, code and data ship."""
    (tmp_path / "file").write_text("x")
    assert secret(name, tmp_path / "file") is None


def test_a_secrets_folder_is_named_once(tmp_path: Path) -> None:
    """All of its files have one name, so that a note can be short."""
    found = {secret(f"home/.Kube/{name}", tmp_path / name) for name in ("config", "cache/a", "cache/b")}
    assert [item and item.name for item in found] == ["home/.Kube/"]


@pytest.mark.parametrize("name", ["ca.pem", "ca-bundle.crt", "ca.key", "ca.txt", "roots.PEM"])
def test_a_public_certificate_is_no_secret(name: str, tmp_path: Path) -> None:
    """A bundle of certificates, or a public key, ships under any name."""
    path = tmp_path / name
    path.write_text("# Mozilla's roots\n\n" + CERTIFICATE * 2 + "-----BEGIN PUBLIC KEY-----\nMIIB\n")
    assert secret(name, path) is None


@pytest.mark.parametrize("name", ["server.pem", "server.crt", "server.key", "innocent.txt", "innocent"])
@pytest.mark.parametrize(
    "content",
    [
        RSA,
        CERTIFICATE * 300 + RSA,  # behind a long chain
        "\ufeff\n" + RSA.replace("RSA ", ""),
        RSA.replace("RSA", "ENCRYPTED"),
        RSA.replace("RSA", "OPENSSH"),
        "-----BEGIN EC PARAMETERS-----\nBggq\n-----END EC PARAMETERS-----\n" + RSA.replace("RSA", "EC"),
        "Bag Attributes\n    friendlyName: me\nKey Attributes: <No Attributes>\n" + RSA,
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ\n",
        "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment\n",
        "PuTTY-User-Key-File-3: ssh-ed25519\n",
        "# created: 2026-01-01T00:00:00Z\n# public key: age1\nAGE-SECRET-KEY-1QQ\n",
        "# my server key\n" + RSA,
        "It is a secret.\n" * 1000 + RSA,
        "tls:\n  key: |\n" + "".join(f"    {line}\n" for line in RSA.splitlines()),
        "#!/bin/sh\ncat > key.pem <<END\r\n" + RSA.replace("\n", "\r\n") + "END\r\n",
        '#!/bin/sh\nKEY="-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\n"\n',
        "KEY=-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBgkqhkiG9w0BAQ\\n\n",
        "identities:\n  AGE-SECRET-KEY-1QQ\n",
    ],
    ids=[
        *("rsa", "chain", "bom", "encrypted", "openssh", "ec", "openssl", "pgp", "ssh2", "putty", "age"),
        *("comment", "text", "yaml", "script", "quoted", "escaped", "indented age"),
    ],
)
def test_a_private_key_is_one_under_any_name(name: str, content: str, tmp_path: Path) -> None:
    """What a file says of itself tells, also where its name is innocent."""
    path = tmp_path / name
    path.write_text(content)
    found = secret(name, path)
    assert found
    assert found.group == "private keys"


def test_a_key_file_that_is_no_text_is_private(tmp_path: Path) -> None:
    """DER does not tell public from private by its looks; names do."""
    (tmp_path / "file").write_bytes(b"\x30\x82\x04\xbd\x02\x01\x00")
    assert secret("server.key", tmp_path / "file")
    assert secret("server.pem", tmp_path / "file")
    assert secret("server.crt", tmp_path / "file") is None


def test_a_service_accounts_key_is_found_in_its_json(tmp_path: Path) -> None:
    """Google names the file after the project, so that its content must tell."""
    path = tmp_path / "my-project-1a2b3c.json"
    path.write_text(json.dumps({"type": "service_account", "private_key": RSA}))
    assert secret(path.name, path)
    path.write_text('{"private_key": "see the vault"}')
    assert secret(path.name, path) is None


@pytest.mark.parametrize(
    "name",
    [
        "credentials.json",
        "logins.json",
        "service-account-1.json",
        "service_account.json",
        "a/Credentials.JSON~",
    ],
)
def test_a_name_that_others_use_is_a_secrets_with_a_secret_in_it(name: str, tmp_path: Path) -> None:
    """Translations have files of these names."""
    path = tmp_path / "file"
    for value in (
        {"type": "service_account", "private_key": RSA},
        {"installed": {"client_id": "1", "client_secret": "GOCSPX-x"}},
        {"aws_secret_access_key": "wJalrXUtnFEMI"},
        {"AccessKeyId": "AKIA", "SecretAccessKey": "wJalrXUtnFEMI"},
        {"refresh_token": "1//x"},
        {"logins": [{"encryptedUsername": "MDI", "encryptedPassword": "MDI="}]},
        {"password": "hunter22"},
    ):
        path.write_text(json.dumps(value))
        assert secret(name, path), value
        path.write_text(json.dumps(value, indent=2))
        assert secret(name, path), value
    for text in (
        '{"title": "Credentials", "password": "Password", "client_secret": "Client secret"}',
        "{}",
        "[]",
    ):
        path.write_text(text)
        assert secret(name, path) is None, text


def der(tag: int, *parts: bytes) -> bytes:
    """A value in DER."""
    content = b"".join(parts)
    size = len(content)
    length = (
        bytes([size]) if size < 128 else b"\x81" + bytes([size]) if size < 256 else b"\x82" + size.to_bytes(2)
    )
    return bytes([tag]) + length + content


def test_a_private_key_in_der_is_one_under_any_name(tmp_path: Path) -> None:
    """Its first fields tell it from a certificate and from a public key."""
    path = tmp_path / "file"
    ed25519, pbes2 = bytes.fromhex("06032b6570"), bytes.fromhex("06092a864886f70d01050d")
    private = [
        der(0x30, der(2, b"\0"), der(0x30, ed25519), der(4, b"k" * 34)),
        der(0x30, der(2, b"\0"), der(2, b"\x7f" * 257), der(2, b"\1\0\1"), der(2, b"d" * 256)),
        der(0x30, der(2, b"\1"), der(4, b"k" * 100), der(0xA0, b"x" * 40)),
        der(0x30, der(0x30, pbes2, der(0x30, b"x" * 20)), der(4, b"k" * 100)),
    ]
    public = [
        der(0x30, der(0x30, ed25519), der(3, b"k" * 33)),
        der(0x30, der(2, b"\x7f" * 257), der(2, b"\1\0\1")),
        der(0x30, der(0x30, der(0xA0, der(2, b"\2")), der(2, b"serial")), der(3, b"s" * 200)),
        b"\x30\x04\x02\x01\x00\x30 and whatever else there is",
    ]
    for name in ("server.der", "server.crt", "server", "a/key.bin"):
        for content in private:
            path.write_bytes(content)
            assert secret(name, path), content
        for content in public:
            path.write_bytes(content)
            assert secret(name, path) is None, content


def test_a_key_file_of_one_word_is_private(tmp_path: Path) -> None:
    """Rails' master.key and WireGuard's keys are a number in hexadecimal or base64; prose is none."""
    path = tmp_path / "file"
    for text in (
        "0123456789abcdef0123456789abcdef",
        "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n",
        "pass",
        f"{'MIIE' * 16}\n{'MIIE' * 16}\nQ==\n",
    ):
        path.write_text(text)
        assert secret("master.key", path)
        assert secret("master.txt", path) is None
    for text in ("1: B\n2: C\n", "Réponses: a, b, c\n", ""):
        path.write_text(text)
        assert secret("answers.key", path) is None


def test_an_answer_holds_until_the_file_is_touched(tmp_path: Path) -> None:
    """Also where size and time of modification stay."""
    path = tmp_path / "server.txt"
    path.write_text(RSA.replace("PRIVATE", "PURPLES"))
    time.sleep(0.1)
    before = path.stat()
    assert [secret(path.name, path) for _ in range(2)] == [None, None]
    path.write_text(RSA)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert secret(path.name, path)


def test_a_second_look_reads_nothing(tmp_path: Path) -> None:
    """2,000 files take the time of 2,000 stats."""
    paths = [tmp_path / f"{number}.json" for number in range(2000)]
    for path in paths:
        path.write_text(json.dumps({"text": "x" * 2000}))
    time.sleep(0.1)
    times = []
    for _ in range(4):
        begun = time.perf_counter()
        assert [path for path in paths if secret(path.name, path)] == []
        times.append(time.perf_counter() - begun)
    assert min(times[1:]) < times[0] / 2, times


def test_code_that_speaks_of_keys_is_none(tmp_path: Path) -> None:
    """A module may have the words in it."""
    path = tmp_path / "keys.ts"
    for text in (
        'const begin = "-----BEGIN PRIVATE KEY-----";\n',
        'const key = "-----BEGIN PRIVATE KEY-----\\n" + body;\n',
        "const key = `\n-----BEGIN PRIVATE KEY-----\n${body}\n`;\n",
        "A key begins with -----BEGIN PRIVATE KEY-----\nand ends with -----END PRIVATE KEY-----\n",
        "// AGE-SECRET-KEY-1 is how it begins\n",
    ):
        path.write_text(text)
        assert secret("keys.ts", path) is None, text
