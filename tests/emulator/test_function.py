"""What a function may be configured to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lambdeno.emulator import Function
from lambdeno.errors import EmulatorError
from lambdeno.limits import RESERVED


@pytest.mark.parametrize("key", sorted(RESERVED))
def test_reserved_variables_are_refused(key: str) -> None:
    """A variable that Lambda sets cannot be set; the error names it."""
    with pytest.raises(EmulatorError, match=f'sets the environment variable "{key}"'):
        Function("f", Path(), environment={key: "x"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a b"}, 'function name "a b"'),
        ({"memory": 64}, "memory 64"),
        ({"timeout": 901}, "timeout 901"),
        ({"timeout": 0}, "timeout 0"),
        ({"concurrency": 0}, "concurrency 0"),
        ({"runtime": "nodejs22.x"}, 'runtime "nodejs22.x"'),
        ({"architecture": "riscv"}, 'architecture "riscv"'),
        ({"log_format": "json"}, 'log format "json"'),
        ({"log_level": "LOUD"}, 'log level "LOUD"'),
        ({"layers": (Path(),) * 6}, "6 layers"),
        ({"environment": {"1A": ""}}, 'variable named "1A"'),
        ({"environment": {"AB": "x" * 5000}}, "take 5002 bytes"),
    ],
)
def test_what_lambda_refuses_is_refused(options: dict[str, Any], message: str) -> None:
    """A configuration that Lambda would not take is an error that quotes the value."""
    with pytest.raises(EmulatorError, match=message) as caught:
        Function(**{"name": "f", "code": Path(), **options})
    assert caught.value.hint
