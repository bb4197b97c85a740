"""Files that hold secrets: by their names, as secret scanners know them, and private keys by their content.

The names are those that gitleaks, shhgit, detect-secrets and GitHub's push protection look for, as far as a
file of that name is of no use to a function. Dumps and databases are data, and not in the list.
docs/reference.md has the same table, held to this one by a test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["GROUPS", "Secret", "secret"]

# "*" stands for characters other than "/". A pattern is held against whole names, of files and of the folders
# above them, in lower case; one with "/" against names that follow each other.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "environment variables": (
        ".env",
        ".env.*",
        "*.env",
        ".envrc",
        ".direnv",
        ".flaskenv",
        ".dev.vars",
        ".dev.vars.*",
    ),
    "application secrets": (
        *("secrets.json", "secrets.yml", "secrets.yaml", "secrets.toml", ".secrets", "credentials.json"),
        *("client_secret*.json", ".htpasswd", ".vault-token", ".vault_pass", ".vault_pass.*", ".vault-pass"),
    ),
    "version control and network logins": (
        *(".git-credentials", ".gitconfig", ".config/git", ".config/gh", ".config/hub", ".hgrc"),
        *(".netrc", "_netrc", ".netrc.*", ".curlrc", ".wgetrc", ".msmtprc", ".fetchmailrc"),
        *("sftp.json", "sftp-config.json", ".ftpconfig", ".remote-sync.json", "*.ovpn"),
    ),
    "SSH": (".ssh", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_*_sk", "*_rsa", "*_ed25519", "*.ppk"),
    "keys and key stores": (
        *("*.p12", "*.pfx", "*.pkcs12", "*.p8", "*.pk8", "*.jks", "*.keystore", "*.bks", "*.bcfks"),
        *(".gnupg", "secring.*", "*.keychain", "*.keychain-db", "key3.db", "key4.db", "logins.json"),
    ),
    "password managers": (
        "*.kdb",
        "*.kdbx",
        "*.agilekeychain",
        "*.opvault",
        "*.1pux",
        "*.psafe3",
        ".password-store",
    ),
    "cloud providers": (
        *(".aws", "credentials.csv", "*_accesskeys.csv", "accesskeys.csv", "rootkey.csv", ".s3cfg", ".boto"),
        *(
            ".passwd-s3fs",
            ".azure",
            "*.publishsettings",
            ".config/gcloud",
            "application_default_credentials.json",
        ),
        *(
            "service-account*.json",
            "service_account*.json",
            "serviceaccount*.json",
            "*-firebase-adminsdk-*.json",
        ),
        *(".oci", ".bluemix", ".aliyun", ".config/doctl", ".config/hcloud", ".config/scw", ".fly", ".vercel"),
        *(".netlify", ".wrangler", ".cloudflared", ".databrickscfg", ".snowsql"),
    ),
    "package registries": (
        *(".npmrc", ".yarnrc", ".yarnrc.yml", ".pypirc", "pip.conf", ".gem", ".cargo", ".m2", ".gradle"),
        *(".composer", "nuget.config", ".bundle/config"),
    ),
    "containers and infrastructure": (
        *(
            ".docker",
            ".dockercfg",
            ".dockerconfigjson",
            ".config/containers",
            ".kube",
            "kubeconfig",
            "*.kubeconfig",
        ),
        *(
            "*.tfstate",
            "*.tfstate.*",
            "*.tfvars",
            "*.tfvars.json",
            ".terraform",
            ".terraform.d",
            ".terraformrc",
        ),
        *("terraform.rc", ".pulumi"),
    ),
    "databases": (".pgpass", "pgpass.conf", ".pg_service.conf", ".my.cnf", ".mylogin.cnf", ".dbshell"),
    "histories": (".*_history", ".histfile", "fish_history", ".lesshst", ".viminfo"),
}
KEYS = "private keys"

# By convention without secrets, and meant to be passed on: .env.example.
EXAMPLE = re.compile(r"(?:.*\.)?env\.(?:example|sample|template|dist)|\.?(?:example|sample|template)\.env")

CERTIFICATE = (".pem", ".key", ".crt", ".cer", ".cert")  # with a private key in it, or without
ONLY_PUBLIC = (".pem", ".key")  # where a file is not text, it is a private key as well
JSON, LARGEST_JSON = ".json", 64 * 1024  # bytes: a service account's key file has 2.4 KB
HEAD = 256  # bytes
BEGINNINGS = (
    *(b"-----BEGIN ", b"---- BEGIN ", b"Bag Attributes", b"Key Attributes", b"PuTTY-User-Key-File-"),
    *(b"openssh-key-v1\0", b"AGE-SECRET-KEY-", b"# created: "),
)
PRIVATE = re.compile(
    rb"---- ?BEGIN [A-Z0-9 ]*PRIVATE KEY|^PuTTY-User-Key-File-|^openssh-key-v1\0|^AGE-SECRET-KEY-1",
    re.MULTILINE,
)
BLOCK = re.compile(rb"^-----BEGIN [A-Z0-9 ]+-----", re.MULTILINE)


@dataclass(frozen=True)
class Secret:
    """Why a file may hold a secret."""

    name: str  # of the file, or of the folder that it is in
    group: str


def _pattern(name: str) -> str:
    return re.escape(name).replace(r"\*", "[^/]*")


_NAMED = re.compile(
    "|".join(
        f"(?P<group{number}>/(?:{'|'.join(map(_pattern, patterns))}))(?=/|$)"
        for number, patterns in enumerate(GROUPS.values())
    )
)


def secret(name: str, path: Path) -> Secret | None:
    """What tells that a file holds secrets: its name in the project, with "/", or its content."""
    at = 0
    while found := _NAMED.search("/" + name.lower(), at):
        at = found.end()
        if at <= len(name) or not EXAMPLE.fullmatch(found[0][1:]):
            folder = "/" if at <= len(name) else ""
            return Secret(name[: at - 1] + folder, list(GROUPS)[int(str(found.lastgroup)[5:])])
    return Secret(name, KEYS) if _is_private_key(name.lower(), path) else None


def _is_private_key(name: str, path: Path) -> bool:
    """True for a file with a private key as text, and for a *.pem or *.key that is no text."""
    try:
        with path.open("rb") as file:
            content = file.read(HEAD)
            begins = content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(BEGINNINGS)
            if not (begins or name.endswith(CERTIFICATE) or name.endswith(JSON)):
                return False
            if name.endswith(JSON) and path.stat().st_size > LARGEST_JSON:
                return False
            content += file.read()
    except OSError:
        return False  # whoever reads it is told
    if PRIVATE.search(content):
        return True
    return name.endswith(ONLY_PUBLIC) and not BLOCK.search(content)
