"""What may hold a secret, by name and by content; and what looks like it and is none."""

from __future__ import annotations

import json
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
        "service-account-1.json",
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
    ],
    ids=["rsa", "chain", "bom", "encrypted", "openssh", "ec", "openssl", "pgp", "ssh2", "putty", "age"],
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


def test_code_that_speaks_of_keys_is_none(tmp_path: Path) -> None:
    """A module may have the words in it."""
    path = tmp_path / "keys.ts"
    path.write_text('const begin = "-----BEGIN PRIVATE KEY-----";\n')
    assert secret("keys.ts", path) is None
