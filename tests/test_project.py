"""lambdeno.toml: every key, every default, and every mistake answered in one sentence."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from lambdeno import limits, project
from lambdeno.errors import ProjectError
from lambdeno.project import Build, Deno, Project, Runtime2

# Words of the libraries below, which a reader of an error message must not need to know.
JARGON = re.compile(
    r"msgspec|tomllib|regex|`|\$|\[\.\.\.\]|Expected|enum|Errno|codec"
    r"|\b(str|int|bool|dict|object)\b|is (date|time)"
)


def write(folder: Path, toml: str) -> Path:
    """A project folder with this lambdeno.toml."""
    folder.mkdir(exist_ok=True)
    (folder / "lambdeno.toml").write_text(toml, "utf-8")
    return folder


def refusal(folder: Path) -> ProjectError:
    """The error that a project folder gives."""
    with pytest.raises(ProjectError) as caught:
        project.load(folder)
    return caught.value


def test_an_empty_file_is_a_whole_project(tmp_path: Path) -> None:
    """Every key has a default; the name is the folder's."""
    folder = write(tmp_path / "orders", "")
    assert project.load(folder) == Project(
        root=folder,
        name="orders",
        entry="src/main.ts",
        handler="function.handler",
        runtime="runtime1",
        shape="os-only",
        architecture="x86_64",
        memory=512,
        timeout=10,
        signal_margin=500,
        log_format="text",
        log_level=None,
        environment={},
        deno=Deno(version="2.9.8", permissions=(), sha256={}),
        build=Build(check=True, minify=True, keep_names=True, source_map=True, code_cache=True, include=()),
    )


def test_every_key_is_read(tmp_path: Path) -> None:
    """What the file says is what the project is."""
    sha256 = "ab" * 32
    folder = write(
        tmp_path,
        f"""
        name = "Shop_1-a"
        entry = "lib/shop.ts"
        handler = "function.shop"
        runtime = "runtime2"
        shape = "managed"
        architecture = "arm64"
        memory = 1024
        timeout = 900
        signal_margin = 2000
        log_format = "json"
        log_level = "warn"
        environment = {{ GREETING = "Grüße" }}
        [deno]
        version = "2.9.7"
        permissions = ["--allow-net", "--allow-env"]
        sha256 = {{ linux-x86_64 = "{sha256}" }}
        [build]
        check = false
        minify = false
        keep_names = false
        source_map = false
        code_cache = false
        include = ["data/*.json"]
        [runtime2]
        standby = "off"
        private_tmp = true
        """,
    )
    assert project.load(folder) == Project(
        root=folder,
        name="Shop_1-a",
        entry="lib/shop.ts",
        handler="function.shop",
        runtime="runtime2",
        shape="managed",
        architecture="arm64",
        memory=1024,
        timeout=900,
        signal_margin=2000,
        log_format="json",
        log_level="warn",
        environment={"GREETING": "Grüße"},
        deno=Deno("2.9.7", ("--allow-net", "--allow-env"), {"linux-x86_64": sha256}),
        build=Build(
            check=False,
            minify=False,
            keep_names=False,
            source_map=False,
            code_cache=False,
            include=("data/*.json",),
        ),
        runtime2=Runtime2("off", private_tmp=True),
    )


def test_artefacts_land_in_dist(tmp_path: Path) -> None:
    """dist/ lies in the project folder."""
    assert project.load(write(tmp_path, "")).dist == tmp_path / "dist"


@pytest.mark.parametrize(
    ("folder", "name"), [("Grüße & Co.", "Gr-e-Co-"), ("a" * 70, "a" * 64), ("a.b", "a-b")]
)
def test_a_folders_name_becomes_one_that_lambda_takes(tmp_path: Path, folder: str, name: str) -> None:
    """Letters, digits, - and _ stay; 64 are enough."""
    assert project.load(write(tmp_path / folder, "")).name == name


@pytest.mark.parametrize(
    ("toml", "memory", "timeout"),
    [("memory = 128\ntimeout = 1", 128, 1), ("memory = 10240\ntimeout = 900", 10240, 900)],
)
def test_lambdas_own_bounds_are_within(tmp_path: Path, toml: str, memory: int, timeout: int) -> None:
    """128 to 10240 MB and 1 to 900 seconds are taken, bounds included."""
    loaded = project.load(write(tmp_path, toml))
    assert (loaded.memory, loaded.timeout) == (memory, timeout)


@pytest.mark.parametrize(
    ("toml", "key", "near"),
    [
        ("memroy = 512", "memroy", "memory"),
        ("Handler = 'a.b'", "Handler", "handler"),
        ("log_levl = 'info'", "log_levl", "log_level"),
        ("logformat = 'json'", "logformat", "log_format"),
        ("signal_marging = 1", "signal_marging", "signal_margin"),
        ("environments = {}", "environments", "environment"),
        ("[deno]\nverison = '2.9.8'", "deno.verison", "deno.version"),
        ("[deno]\npermission = []", "deno.permission", "deno.permissions"),
        ("[build]\nsourcemap = true", "build.sourcemap", "build.source_map"),
        ("[build]\nkeepnames = true", "build.keepnames", "build.keep_names"),
        ("[build]\nincludes = []", "build.includes", "build.include"),
        ("tracin = true", "tracin", "tracing"),
        ("[url]\ninvokemode = 'streaming'", "url.invokemode", "url.invoke_mode"),
        ("[url.cors]\norigin = []", "url.cors.origin", "url.cors.origins"),
        ("[vpc]\nsubnet = []", "vpc.subnet", "vpc.subnets"),
        ("[role]\npolicie = []", "role.policie", "role.policies"),
        ("[event_invoke]\nretry = 1", "event_invoke.retry", "event_invoke.retries"),
    ],
)
def test_an_unknown_key_gets_the_nearest_right_one(tmp_path: Path, toml: str, key: str, near: str) -> None:
    """A misspelt key is named with its table, and so is the key that was meant."""
    error = refusal(write(tmp_path, toml))
    assert error.message == f'"{tmp_path / "lambdeno.toml"}" has an unknown key "{key}"'
    assert error.hint == f'did you mean "{near}"?'


@pytest.mark.parametrize(
    ("toml", "key", "known"),
    [
        ("zzz = 1", "zzz", "name, description, entry, handler"),
        ("root = '/'", "root", "name, description, entry, handler"),
        ("[url]\nzzz = 1", "url.zzz", "auth, invoke_mode, cors"),
        ("[deno]\nzzz = 1", "deno.zzz", "version, permissions, sha256"),
        (
            "[build]\nzzz = 1",
            "build.zzz",
            "bundle, check, minify, keep_names, source_map, code_cache, include",
        ),
    ],
)
def test_a_key_like_none_gets_the_list(tmp_path: Path, toml: str, key: str, known: str) -> None:
    """A key that resembles nothing is answered with the keys of its table; root is none of them."""
    error = refusal(write(tmp_path, toml))
    assert error.message.endswith(f'has an unknown key "{key}"')
    assert error.hint.startswith(f"known keys: {known}")
    assert "root" not in error.hint


@pytest.mark.parametrize(
    ("toml", "key", "may_be"),
    [
        ("name = 1", "name", "text"),
        ("entry = ['a']", "entry", "text"),
        ("handler = true", "handler", "text"),
        ("runtime = 1", "runtime", "text"),
        ("architecture = 64", "architecture", "text"),
        ("memory = '512'", "memory", "a whole number"),
        ("memory = 512.5", "memory", "a whole number"),
        ("memory = true", "memory", "a whole number"),
        ("memory = 2026-01-01", "memory", "a whole number"),
        ("timeout = 10:00:00", "timeout", "a whole number"),
        ("timeout = {}", "timeout", "a whole number"),
        ("signal_margin = '500'", "signal_margin", "a whole number"),
        ("signal_margin = 0.5", "signal_margin", "a whole number"),
        ("log_format = true", "log_format", "text"),
        ("storage = '1 GB'", "storage", "a whole number"),
        ("tracing = 'Active'", "tracing", "true or false"),
        ("reserved_concurrency = 'none'", "reserved_concurrency", "a whole number"),
        ("layers = 'arn'", "layers", "a list"),
        ("tags = ['a']", "tags", "a table"),
        ("tags = { a = 1 }", "tags.a", "text"),
        ("url = true", "url", "a table"),
        ("[url]\ncors = '*'", "url.cors", "a table"),
        ("[url.cors]\norigins = '*'", "url.cors.origins", "a list"),
        ("[vpc]\nsubnets = 'subnet-1'", "vpc.subnets", "a list"),
        ("[event_invoke]\nretries = '1'", "event_invoke.retries", "a whole number"),
        ("log_format = 'json'\nlog_level = 3", "log_level", "text"),
        ("environment = 'A=1'", "environment", "a table"),
        ("environment = { RETRIES = 1 }", "environment.RETRIES", "text"),
        ("environment = { NESTED = { A = '1' } }", "environment.NESTED", "text"),
        ("deno = '2.9.8'", "deno", "a table"),
        ("[deno]\nversion = 2.9", "deno.version", "text"),
        ("[deno]\npermissions = '--allow-net'", "deno.permissions", "a list"),
        ("[deno]\npermissions = [1]", "deno.permissions", "text"),
        ("[deno]\nsha256 = 'ab'", "deno.sha256", "a table"),
        ("[deno]\nsha256 = { linux-arm64 = 1 }", "deno.sha256.linux-arm64", "text"),
        ("build = true", "build", "a table"),
        ("[build]\ncheck = 'yes'", "build.check", "true or false"),
        ("[build]\nminify = 1", "build.minify", "true or false"),
        ("[build]\nsource_map = 'inline'", "build.source_map", "true or false"),
        ("[build]\nkeep_names = 'yes'", "build.keep_names", "true or false"),
        ("[build]\ncode_cache = 0", "build.code_cache", "true or false"),
        ("[build]\ninclude = 'data/*'", "build.include", "a list"),
        ("[build]\ninclude = [true]", "build.include", "text"),
    ],
)
def test_a_wrong_type_is_answered_with_the_right_one(
    tmp_path: Path, toml: str, key: str, may_be: str
) -> None:
    """The error names the file and the key, the hint what the key must be, both in plain words."""
    error = refusal(write(tmp_path, toml))
    assert str(tmp_path / "lambdeno.toml") in error.message
    assert f'"{key}' in error.message
    assert error.hint.startswith(key)
    assert error.hint.endswith(f"must be {may_be}")
    assert not JARGON.search(words(error, tmp_path))


@pytest.mark.parametrize(
    ("toml", "key", "may_be"),
    [
        ("memory = 127", "memory", "at least 128"),
        ("memory = 10241", "memory", "at most 10240"),
        ("memory = -1", "memory", "at least 128"),
        ("timeout = 0", "timeout", "at least 1"),
        ("timeout = 901", "timeout", "at most 900"),
        ("signal_margin = -1", "signal_margin", "at least 0"),
        ("signal_margin = 900001", "signal_margin", "at most 900000"),
        ("storage = 511", "storage", "at least 512"),
        ("storage = 10241", "storage", "at most 10240"),
        ("reserved_concurrency = -1", "reserved_concurrency", "at least 0"),
        ("log_retention = 2", "log_retention", "3288, 3653 days (0: for ever)"),
        ("alias = '42'", "alias", "up to 128 letters, digits, - and _, and not a number"),
        ("alias = 'to live'", "alias", "up to 128 letters, digits, - and _, and not a number"),
        (f"description = '{'a' * 257}'", "description", "shorter"),
        ("bucket = 'Mine'", "bucket", "3 to 63 small letters, digits, dots and hyphens"),
        ("layers = ['ffmpeg:1']", "layers", ":layer:ffmpeg:3"),
        ("[role]\nname = 'two words'", "role.name", "the name or the ARN of a role"),
        ("[role]\npolicies = ['AdministratorAccess']", "role.policies", "ARNs of managed policies"),
        ("[url]\nauth = 'AWS_IAM'", "url.auth", '"iam" or "none"'),
        ("[url]\ninvoke_mode = 'RESPONSE_STREAM'", "url.invoke_mode", '"buffered" or "streaming"'),
        ("[url.cors]\nmax_age = 86401", "url.cors.max_age", "at most 86400"),
        (
            "[url.cors]\nmethods = ['OPTIONS']",
            "url.cors.methods",
            '"*", "DELETE", "GET", "HEAD", "PATCH", "POST" and "PUT"',
        ),
        ("[vpc]\nsubnets = ['main']", "vpc.subnets", "ids, such as subnet-0123abcd"),
        ("[vpc]\nsecurity_groups = ['main']", "vpc.security_groups", "ids, such as sg-0123abcd"),
        ("[event_invoke]\nretries = 3", "event_invoke.retries", "at most 2"),
        ("[event_invoke]\nmax_event_age = 59", "event_invoke.max_event_age", "at least 60"),
        (
            "[event_invoke]\non_failure = 'queue'",
            "event_invoke.on_failure",
            "a topic, an event bus or a function",
        ),
        ("log_format = 'JSON'", "log_format", '"text" or "json"'),
        ("log_level = ''", "log_level", '"trace", "debug", "info", "warn", "error" or "fatal"'),
        ("log_level = 'INFO'", "log_level", '"trace", "debug", "info", "warn", "error" or "fatal"'),
        ("runtime = 'runtime9'", "runtime", '"runtime1" or "runtime2"'),
        ("runtime2.standby = 'maybe'", "runtime2.standby", '"auto", "on" or "off"'),
        ("shape = 'image'", "shape", '"os-only" or "managed"'),
        ("architecture = 'arm'", "architecture", '"x86_64" or "arm64"'),
        ("name = ''", "name", "1 to 64 letters, digits, - and _"),
        ("name = 'a b'", "name", "1 to 64 letters, digits, - and _"),
        ("name = 'é'", "name", "1 to 64 letters, digits, - and _"),
        (f"name = '{'a' * 65}'", "name", "1 to 64 letters, digits, - and _"),
        ('name = "a\\n"', "name", "1 to 64 letters, digits, - and _"),
        ("handler = 'handler'", "handler", "<file>.<export>, such as function.handler"),
        ("handler = 'function.'", "handler", "<file>.<export>, such as function.handler"),
        ("handler = '.handler'", "handler", "<file>.<export>, such as function.handler"),
        ("handler = '../function.handler'", "handler", "<file>.<export>, such as function.handler"),
        ("handler = 'function.my handler'", "handler", "<file>.<export>, such as function.handler"),
        (f"handler = 'function.{'a' * 120}'", "handler", "<file>.<export>, such as function.handler"),
        ('handler = "function.handler\\n"', "handler", "<file>.<export>, such as function.handler"),
        ("[deno]\nversion = '2.9'", "deno.version", "three numbers, such as 2.9.8"),
        ("[deno]\nversion = 'v2.9.8'", "deno.version", "three numbers, such as 2.9.8"),
        ("[deno]\nversion = '2.9.8rc1'", "deno.version", "three numbers, such as 2.9.8"),
        ('[deno]\nversion = "2.9.8\\n"', "deno.version", "three numbers, such as 2.9.8"),
        ("[deno]\nversion = '٢.٩.٨'", "deno.version", "three numbers, such as 2.9.8"),
    ],
)
def test_a_wrong_value_is_answered_with_what_it_may_be(
    tmp_path: Path, toml: str, key: str, may_be: str
) -> None:
    """Out of range, not in the list, malformed: file and key in the error, what may be in the hint."""
    error = refusal(write(tmp_path, toml))
    assert str(tmp_path / "lambdeno.toml") in error.message
    assert f'"{key}"' in error.message
    assert error.hint.startswith(f"{key} m")
    assert error.hint.endswith(may_be)
    assert not JARGON.search(words(error, tmp_path))


@pytest.mark.parametrize("sha256", ["zz" * 32, "ab", "", f"{'ab' * 32} --index-url=x"])
def test_a_checksum_is_64_hexadecimal_digits(tmp_path: Path, sha256: str) -> None:
    """What vouches for a download is well-formed, and nothing else reaches the package client."""
    error = refusal(write(tmp_path, f'[deno.sha256]\nlinux-x86_64 = "{sha256}"'))
    assert "deno.sha256.linux-x86_64" in error.message
    assert "64 hexadecimal digits" in error.hint


def test_a_checksum_is_for_a_platform_that_deno_has(tmp_path: Path) -> None:
    """A misspelt platform would vouch for nothing."""
    error = refusal(write(tmp_path, f'[deno.sha256]\nlinux-x64 = "{"ab" * 32}"'))
    assert "deno.sha256.linux-x64" in error.message
    assert "linux-x86_64" in error.hint


@pytest.mark.parametrize("key", sorted(limits.RESERVED | limits.CREDENTIALS))
def test_what_lambda_sets_is_not_for_the_project(tmp_path: Path, key: str) -> None:
    """A variable that Lambda reserves is refused here, not at the deploy."""
    error = refusal(write(tmp_path, f"[environment]\n{key} = 'x'"))
    assert error.message == f'"{tmp_path / "lambdeno.toml"}": environment.{key} is reserved by Lambda'


@pytest.mark.parametrize(
    "key", ["AWS_LAMBDA_EXEC_WRAPPER", "HANDLER_EXT", "LAMBDENO_INVOKE_MODE", "LAMBDENO_RUNTIME"]
)
def test_what_lambdeno_sets_is_not_for_the_project(tmp_path: Path, key: str) -> None:
    """A variable that would be replaced without a word is refused."""
    error = refusal(write(tmp_path, f"[environment]\n{key} = 'x'"))
    assert f"environment.{key}" in error.message


@pytest.mark.parametrize("key", ["A", "1A", "_A", "A-B", "A B", "Ä1", "", "AB\\n"])
def test_a_variables_name_is_one_that_lambda_takes(tmp_path: Path, key: str) -> None:
    """Two letters, digits or _ at least, a letter first."""
    error = refusal(write(tmp_path, f'[environment]\n"{key}" = "x"'))
    assert "is not a name that Lambda takes" in error.message
    assert "a letter first" in error.hint


def test_a_variable_holds_no_nul(tmp_path: Path) -> None:
    """No process can be given one."""
    error = refusal(write(tmp_path, '[environment]\nGREETING = "a\\u0000b"'))
    assert "environment.GREETING" in error.message


def test_the_environment_holds_4_kb(tmp_path: Path) -> None:
    """Names and values count together, as the JSON that Lambda measures."""
    folder = write(tmp_path, f"[environment]\nTEXT = '{'é' * 1900}'")
    assert len(project.load(folder).environment["TEXT"]) == 1900
    error = refusal(write(tmp_path, f"[environment]\nTEXT = '{'é' * 2047}'"))
    assert "bytes as JSON; Lambda takes 4096" in error.message
    many = "\n".join(f'V{number} = "value {number}"' for number in range(290))  # 3770 bytes but for the JSON
    assert "bytes as JSON" in refusal(write(tmp_path, f"[environment]\n{many}")).message


def test_what_lambdeno_adds_has_its_place_in_the_4_kb(tmp_path: Path) -> None:
    """A project that fills the environment to its last byte could not be deployed."""
    error = refusal(write(tmp_path, f"[environment]\nTEXT = '{'x' * 4092}'"))
    assert "Lambda takes 4096" in error.message


@pytest.mark.parametrize(
    ("toml", "place"),
    [
        ("= 1", "line 1"),
        ("name = 'a'\nmemory = \n", "line 2"),
        ("\nname: 'a'\n", "line 2"),
        ("memory = 128\nmemory = 256\n", "line 2"),
        ("name = 'a\n", "end of document"),
    ],
)
def test_what_is_not_toml_is_told_with_its_line(tmp_path: Path, toml: str, place: str) -> None:
    """The file and the line are in the error."""
    error = refusal(write(tmp_path, toml))
    assert error.message.startswith(f'"{tmp_path / "lambdeno.toml"}" is not TOML')
    assert place in error.message


def test_a_missing_file_is_told_with_the_remedy(tmp_path: Path) -> None:
    """Where it was looked for, and that an empty one is enough."""
    error = refusal(tmp_path)
    assert error.message == f'No lambdeno.toml in "{tmp_path}"'
    assert "--project" in error.hint
    assert "an empty file is enough" in error.hint


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    """TOML is UTF-8; the hint says so."""
    (tmp_path / "lambdeno.toml").write_bytes(b'name = "caf\xe9"')
    error = refusal(tmp_path)
    assert str(tmp_path / "lambdeno.toml") in error.message
    assert "UTF-8" in error.message + error.hint
    assert not JARGON.search(words(error, tmp_path))


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    """What cannot be read is told in the system's words, without its number."""
    (tmp_path / "lambdeno.toml").mkdir()
    error = refusal(tmp_path)
    assert error.message == f'Cannot read "{tmp_path / "lambdeno.toml"}": Is a directory'


def test_a_project_is_frozen(tmp_path: Path) -> None:
    """Settings are resolved once."""
    loaded = project.load(write(tmp_path, ""))
    with pytest.raises(AttributeError):
        loaded.memory = 1024  # type: ignore[misc]


def words(error: ProjectError, folder: Path) -> str:
    """What the error says, without the folder's name."""
    return f"{error.message}\n{error.hint}".replace(str(folder), "")


def test_settings_of_the_other_runtime_are_told(tmp_path: Path) -> None:
    """A key that would have no effect is a mistake."""
    error = refusal(write(tmp_path, "[runtime2]\nprivate_tmp = true"))
    assert 'has settings in [runtime2], and runtime = "runtime1"' in error.message


def test_debugging_is_for_the_project_to_set(tmp_path: Path) -> None:
    """LAMBDENO_DEBUG has no key: the environment is where it is set."""
    loaded = project.load(write(tmp_path, "[environment]\nLAMBDENO_DEBUG = '1'"))
    assert loaded.variables["LAMBDENO_DEBUG"] == "1"


@pytest.mark.parametrize("margin", [0, 900_000])
def test_the_signals_bounds_are_within(tmp_path: Path, margin: int) -> None:
    """From no time at all to Lambda's longest timeout; what is not the default is a variable."""
    loaded = project.load(write(tmp_path, f"signal_margin = {margin}"))
    assert loaded.signal_margin == margin
    assert loaded.variables["LAMBDENO_SIGNAL_MARGIN"] == str(margin)


def test_the_default_margin_is_no_variable(tmp_path: Path) -> None:
    """500 ms is what the runtime does by itself, whether it is written down or not."""
    loaded = project.load(write(tmp_path, "signal_margin = 500"))
    assert loaded.variables == project.load(write(tmp_path, "")).variables == {"LAMBDENO_RUNTIME": "runtime1"}


@pytest.mark.parametrize("level", ["trace", "debug", "info", "warn", "error", "fatal"])
def test_a_level_is_of_json_logs(tmp_path: Path, level: str) -> None:
    """Lambda has levels with JSON alone: with text, a level would have no effect."""
    loaded = project.load(write(tmp_path, f"log_format = 'json'\nlog_level = '{level}'"))
    assert (loaded.log_format, loaded.log_level) == ("json", level)
    for text in ("", "log_format = 'text'\n"):
        error = refusal(write(tmp_path, f"{text}log_level = '{level}'"))
        assert f'has log_level = "{level}", and log_format = "text"' in error.message
        assert error.hint.startswith('set log_format = "json"')


def test_no_debugger_is_deployed(tmp_path: Path) -> None:
    """LAMBDENO_INSPECT is for a process on this machine."""
    error = refusal(write(tmp_path, "[environment]\nLAMBDENO_INSPECT = '127.0.0.1:9229'"))
    assert "environment.LAMBDENO_INSPECT" in error.message
    assert "lambdeno dev" in error.hint


@pytest.mark.parametrize(
    ("toml", "variables"),
    [
        ("[url]", {}),
        ("[url]\ninvoke_mode = 'buffered'", {}),
        ("[url]\ninvoke_mode = 'streaming'", {"LAMBDENO_INVOKE_MODE": "streaming"}),
    ],
)
def test_how_a_url_answers_reaches_the_bridge(tmp_path: Path, toml: str, variables: dict[str, str]) -> None:
    """url.invoke_mode is a setting of the URL and of the function."""
    loaded = project.load(write(tmp_path, toml))
    assert loaded.variables == {"LAMBDENO_RUNTIME": "runtime1", **variables}


@pytest.mark.parametrize(
    ("toml", "handler", "extension"),
    [
        ("", "src/main.handler", "ts"),
        ("entry = './main.mjs'\n", "main.handler", "mjs"),
        ("handler = 'src/main.Api.create'\n", "src/main.Api.create", "ts"),
        ("entry = 'a/b-c/d_e.tsx'\nhandler = 'a/b-c/d_e.default'\n", "a/b-c/d_e.default", "tsx"),
    ],
)
def test_without_a_bundle_the_handler_is_in_the_entry(
    tmp_path: Path, toml: str, handler: str, extension: str
) -> None:
    """It need not be said; the extension is a variable, and so are the permissions, which would be all."""
    loaded = project.load(write(tmp_path, toml + "build.bundle = false"))
    assert loaded.handler == handler
    assert loaded.variables["HANDLER_EXT"] == extension
    assert loaded.variables["LAMBDENO_PERMISSIONS"] == "default"


def test_without_a_bundle_permissions_are_the_projects(tmp_path: Path) -> None:
    """What deno.permissions says holds for either build."""
    toml = "build.bundle = false\ndeno.permissions = ['--allow-env', '--allow-net=a.example']"
    loaded = project.load(write(tmp_path, toml))
    assert loaded.variables["LAMBDENO_PERMISSIONS"] == "--allow-env --allow-net=a.example"


@pytest.mark.parametrize(
    "handler", ["function.handler", "src/other.handler", "main.handler", "src/main/x.handler"]
)
def test_without_a_bundle_no_other_file_has_the_handler(tmp_path: Path, handler: str) -> None:
    """A handler of a file that is not there is refused here, not at the first start."""
    error = refusal(write(tmp_path, f"handler = '{handler}'\nbuild.bundle = false"))
    assert f'handler is "{handler}"' in error.message
    assert 'set handler = "src/main.handler"' in error.hint


@pytest.mark.parametrize("entry", ["src/main", "src/main.dev.ts", "../main.ts", "/a/main.ts", "main.json"])
def test_without_a_bundle_the_entry_is_a_module(tmp_path: Path, entry: str) -> None:
    """Lambda's handler names a file up to its first dot."""
    error = refusal(write(tmp_path, f"entry = '{entry}'\nbuild.bundle = false"))
    assert f'entry is "{entry}"' in error.message


def test_settings_reach_the_bootstrap_as_variables(tmp_path: Path) -> None:
    """What differs from the default is a variable of the function."""
    toml = 'runtime = "runtime2"\n[runtime2]\nstandby = "on"\nprivate_tmp = true\n'
    assert project.load(write(tmp_path / "all", toml)).variables == {
        "LAMBDENO_RUNTIME": "runtime2",
        "LAMBDENO_STANDBY": "on",
        "LAMBDENO_PRIVATE_TMP": "on",
    }
    plain = project.load(write(tmp_path / "plain", 'runtime = "runtime2"'))
    assert plain.variables == {"LAMBDENO_RUNTIME": "runtime2"}


LAYER = "arn:aws:lambda:eu-west-1:123456789012:layer:extra:1"


@pytest.mark.parametrize(
    ("toml", "words", "hint"),
    [
        (f"layers = {[LAYER] * 2}", f'layers names "{LAYER}" twice', "name it once"),
        (f"layers = {[LAYER] * 4}", "layers has 4, which makes 6 with lambdeno's own two", "name 3 at most"),
        (
            "[vpc]\nsubnets = ['subnet-1']",
            "[vpc] has no subnets or no security_groups",
            "at least one of each",
        ),
        ("[vpc]", "[vpc] has no subnets or no security_groups", "at least one of each"),
        (
            "[role]\nname = 'own'\npolicy = 'p.json'",
            'role.policies and role.policy are for a role that lambdeno makes, and role.name names "own"',
            "take role.name out",
        ),
        ("[tags]\n'aws:a' = 'b'", 'tags has the key "aws:a", which AWS does not take', "up to 128 letters"),
        ("[tags]\n'a?' = 'b'", 'tags has the key "a?", which AWS does not take', "up to 128 letters"),
        ("[tags]\na = 'b?'", "tags.a has a value that AWS does not take", "up to 256 letters"),
        ("[tags]\n" + "\n".join(f"t{number} = ''" for number in range(50)), "has 50 tags", "use 49 at most"),
    ],
)
def test_what_lambda_would_refuse_is_refused_here(tmp_path: Path, toml: str, words: str, hint: str) -> None:
    """Keys that are right each by itself and wrong together, and AWS's own rules for tags."""
    error = refusal(write(tmp_path, toml))
    assert words in error.message
    assert hint in error.hint
    assert not JARGON.search(error.message + error.hint)


def test_a_url_is_asked_for_by_its_table_alone(tmp_path: Path) -> None:
    """An empty [url] is a URL with IAM's authentication; no table is no URL."""
    assert project.load(write(tmp_path / "a", "")).url is None
    assert project.load(write(tmp_path / "b", "[url]")).url == project.Url("iam", "buffered", None)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("name = " + "[" * 5000 + "]" * 5000, "its lists or tables are nested too deep"),
        ("x = " + "{a=" * 5000 + "1" + "}" * 5000, "its lists or tables are nested too deep"),
        ("memory = " + "9" * 5000, "it has a number of more than 4300 digits"),
        ("[tags]\na = " + "9" * 5000, "it has a number of more than 4300 digits"),
        ("memory = " + "9" * 4000, '"memory" is out of range'),
        ("memory = 0x" + "f" * 5000, '"memory" is out of range'),
        ("memory = 1e9999", '"memory" is or holds a number'),
        ("a" + ".a" * 5000 + " = 1", 'has an unknown key "a"'),
        ("memory = 2020-13-45", "is not TOML"),
        ("a..b = 1", "is not TOML"),
        ('name = "\0"', "is not TOML"),
        ('entry = "src/a\\u0000.ts"', '"entry" holds a NUL'),
        ('[build]\ninclude = ["a", "b\\u0000"]', '"build.include" holds a NUL'),
        ('[url.cors]\norigins = ["\\u0000"]', '"url.cors.origins" holds a NUL'),
        ('[environment]\nAB = "\\u0000"', '"environment.AB" holds a NUL'),
    ],
    ids=lambda text: text[:20],
)
def test_toml_without_measure_is_one_sentence(tmp_path: Path, toml: str, says: str) -> None:
    """What no key could mean is told as one sentence that names the file."""
    (tmp_path / "lambdeno.toml").write_text(toml)
    with pytest.raises(ProjectError) as caught:
        project.load(tmp_path)
    assert str(tmp_path / "lambdeno.toml") in caught.value.message
    assert says in caught.value.message
    assert caught.value.hint


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such files")
def test_a_project_file_that_is_no_file(tmp_path: Path) -> None:
    """A folder, a pipe that nobody writes, a device without an end: told at once."""
    path = tmp_path / "lambdeno.toml"
    for kind in ("folder", "pipe", "device"):
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
        with pytest.raises(ProjectError, match=r"Cannot read"):
            project.load(tmp_path)
        path.rmdir() if path.is_dir() else path.unlink()
