"""Files that hold secrets: by their names, as secret scanners know them, and private keys by their content.

A copy (``.env~``, ``.npmrc.bak``, ``id_rsa (1)``) is what it is a copy of. A file is read once, as long as
nobody touches it: every look of ``lambdeno dev`` asks about all files.

The names are those that gitleaks, shhgit, detect-secrets and GitHub's push protection look for, as far as a
file of that name is of no use to a function. Dumps and databases are data, and not in the list.
docs/reference.md has the same table, held to this one by a test.
"""

from __future__ import annotations

import functools
import os
import re
import time
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
        ".env-*",
        ".env_*",
        "*.env",
        ".envrc",
        ".envrc.*",
        ".direnv",
        ".flaskenv",
        ".dev.vars",
        ".dev.vars.*",
    ),
    "application secrets": (
        *("secrets.json", "secrets.yml", "secrets.yaml", "secrets.toml", ".secrets", "credentials.json"),
        *(".secrets.json", ".secrets.yml", ".secrets.yaml", ".secrets.toml"),
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
            "kubeconfig.y*ml",
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

# Names of files alone: a folder sensor_rsa is a sensor's.
OF_FILES = frozenset({"*.env", "*_rsa", "*_ed25519"})

# Names that are a translation's, or a form's, as well: the content has to have a secret, too.
BY_CONTENT = frozenset(
    {
        *("credentials.json", "logins.json"),
        *("service-account*.json", "service_account*.json", "serviceaccount*.json"),
    }
)

# By convention without secrets, and meant to be passed on: .env.example. Or a description of what is in them.
EXAMPLE = re.compile(
    r"(?:.*\.)?env(?:rc)?[._-](?:example|sample|template|dist)|\.?(?:example|sample|template)\.env"
    r"|.*\.d\.[cm]?ts|.*\.schema\.json"
)

# What editors, file managers and people add to the name of a copy: at its end, and before its extension.
COPY = re.compile(
    r"~+$|\.(?:bak|backup|old|orig|save|sav|swp|swo|tmp|copy|[0-9])$"
    r"|[ _-]+copy(?: ?\(?[0-9]+\)?)?(?=\.[^.]*$|$)| ?\([0-9]+\)(?=\.[^.]*$|$)"
)
EMACS = re.compile(r"#(.+)#")  # saves what is not saved yet
VIM = re.compile(r"\.(.+)\.sw[a-p]")  # the same; of a file whose name begins with a dot, it adds no other

CERTIFICATE = (".pem", ".key", ".crt", ".cer", ".cert")  # with a private key in it, or without
ONLY_PUBLIC = (".pem", ".key")  # where a file is not text, or one word, it is a private key as well
HEAD = 64 * 1024  # bytes
CHAIN = (b"-----BEGIN ", b"Bag Attributes", b"Key Attributes")  # a key may be far behind
OPENSSH = b"openssh-key-v1\0"  # without its armour
WORDS = (b"PRIVATE KEY", b"PuTTY-User-Key-File-", b"AGE-SECRET-KEY-1", OPENSSH)
PRIVATE = re.compile(
    rb"^[ \t]*-----?[ ]?BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)? ?-----?\s*[A-Za-z0-9+/=]"
    rb"|^[ \t]*PuTTY-User-Key-File-[0-9]|\Aopenssh-key-v1\0|^[ \t]*AGE-SECRET-KEY-1[A-Z0-9]"
    # In the middle of a line a key is one if it goes on: code has the words alone.
    rb"|BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:(?:\\[rn])+[A-Za-z0-9+/=]{4}"
    rb"|[ \t]*\r?\n\s*(?:[A-Za-z0-9+/=]{16}|Proc-Type:))",
    re.MULTILINE,
)
# A key in hexadecimal or base64, perhaps folded, or a password.
ONE_WORD = re.compile(rb"\s*(?:\S+|(?:[A-Za-z0-9+/]{16,}\s+)+[A-Za-z0-9+/]+=*)\s*")
# PKCS #1, PKCS #8, SEC 1: a sequence that starts with its version, as certificates and public keys do not;
# or an encrypted PKCS #8, by its algorithm.
DER = re.compile(
    rb"\x30(?:[\x00-\x7f]|\x81(?P<one>.)|\x82(?P<two>..))(?P<body>)"
    rb"(?:\x02\x01[\x00\x01][\x30\x02\x04]|\x30[\x00-\x7f]\x06.\x2a\x86\x48\x86\xf7\x0d\x01(?:\x05|\x0c\x01))",
    re.DOTALL,
)
# A value of one word; behind a name that may be a label, too, with a digit in it.
SECRET_VALUE = re.compile(
    rb'"[^"\s]*(?:private_?key|client_?secret|aws_?secret|secret_?access_?key|refresh_?token|encrypted_?password)'
    rb'[^"\s]*"\s*:\s*"[^"\s]+"'
    rb'|"[^"\s]*(?:password|token|secret|api_?key)[^"\s]*"\s*:\s*"(?=[^"\s]*[0-9])[^"\s]{6,}"',
    re.IGNORECASE,
)
SETTLED = 50_000_000  # ns: a file system's clock may stand still for 10 ms


@dataclass(frozen=True)
class Secret:
    """Why a file may hold a secret."""

    name: str  # of the file, or of the folder that it is in
    group: str


@dataclass(frozen=True)
class _Named:
    """What a file's name says."""

    secret: Secret | None
    kind: str  # what to look for in the content: a private key in "certificate", a value in "credentials"


@dataclass(frozen=True)
class _Content:
    """What a file's content says."""

    is_key: bool = False  # a private one
    has_value: bool = False  # of "credentials": a secret one


def _pattern(name: str) -> str:
    return re.escape(name).replace(r"\*", "[^/]*") + (r"\Z" if name in OF_FILES else "")


_NAMED = re.compile(
    "|".join(
        f"(?P<group{number}>/(?:{'|'.join(map(_pattern, patterns))}))(?=/|$)"
        for number, patterns in enumerate(GROUPS.values())
    )
)
_BY_CONTENT = re.compile("|".join(map(_pattern, BY_CONTENT)))
_known: dict[str, tuple[tuple[object, ...], _Content]] = {}


def secret(name: str, path: Path) -> Secret | None:
    """What tells that a file holds secrets: its name in the project, with "/", or its content."""
    named = _named(name)
    if named.secret and named.kind != "credentials":
        return named.secret
    content = _content(os.fspath(path), named.kind)
    if named.secret and (content.has_value or content.is_key):
        return named.secret
    return Secret(name, KEYS) if content.is_key else None


@functools.lru_cache(maxsize=65536)
def _named(name: str) -> _Named:
    parts = name.lower().split("/")
    plain = [_original(part) for part in parts]
    last = plain[-1]
    kind = "opaque" if last.endswith(ONLY_PUBLIC) else "certificate" if last.endswith(CERTIFICATE) else ""
    vim = VIM.fullmatch(parts[-1])
    for tried in (plain, parts, [*plain[:-1], vim[1]] if vim else []):
        text, at = "/" + "/".join(tried), 0
        while found := _NAMED.search(text, at):
            at = found.end()
            if at == len(text) and EXAMPLE.fullmatch(last):
                continue
            shown = "/".join(name.split("/")[: text.count("/", 0, at)])
            group = list(GROUPS)[int(str(found.lastgroup)[5:])]
            is_ambiguous = at == len(text) and _BY_CONTENT.fullmatch(tried[-1])
            secret = Secret(shown + ("/" if at < len(text) else ""), group)
            return _Named(secret, "credentials" if is_ambiguous else kind)
    return _Named(None, kind)


def _original(name: str) -> str:
    """The name of what a file is a copy of; its own if it is none."""
    emacs = EMACS.fullmatch(name)
    name, former = emacs[1] if emacs else name, ""
    while name != former:
        former, name = name, COPY.sub("", name) or name
    return name


def _content(path: str, kind: str) -> _Content:
    """What the content says; nothing where it cannot be read: whoever ships it is told."""
    try:
        state = os.stat(path)  # noqa: PTH116 - called for each file at each look
        identity = (kind, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev)
        known = _known.get(path)
        if known and known[0] == identity:
            return known[1]
        now = time.time_ns()
        content = _read(path, kind, state.st_size)
    except OSError:
        return _Content()
    if now - max(state.st_mtime_ns, state.st_ctime_ns) > SETTLED:  # or it may change without a trace
        _known[path] = identity, content
    return content


def _read(path: str, kind: str, size: int) -> _Content:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
        text = file.read(HEAD)
        if kind in ("opaque", "certificate") or text.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(CHAIN):
            text += file.readall()
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = text.decode("utf-16", "ignore").encode()
    text = text.removeprefix(b"\xef\xbb\xbf")
    is_text = b"\0" not in text or text.startswith(OPENSSH)
    is_key = is_text and any(word in text for word in WORDS) and bool(PRIVATE.search(text))
    return _Content(
        is_key or _is_der(text, size) or (kind == "opaque" and not _is_prose(text)),
        kind == "credentials" and bool(SECRET_VALUE.search(text)),
    )


def _is_der(content: bytes, size: int) -> bool:
    """True for a private key in DER, which has the file's length in it."""
    found = DER.match(content)
    if not found:
        return False
    length = int.from_bytes(found["one"] or found["two"] or content[1:2], "big")
    return found.start("body") + length == size


def _is_prose(content: bytes) -> bool:
    """True for text of more than one word, and for none."""
    if b"\0" in content or ONE_WORD.fullmatch(content):
        return False
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
