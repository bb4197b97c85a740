"""The program that the slot holds first: it compiles the one that takes its place.

    interpreter SHOWN SOURCE [SHOWN SOURCE ...]   ->   stdout, for each: size (4 bytes, little-endian), code

Bytecode and its marshalled form belong to one minor version of CPython, so the interpreter compiles for
itself. SHOWN is the file name that a traceback has. Nothing here needs more than core initialisation.
"""

import marshal
import posix
import sys


def main(_: str) -> int:
    """Compile each source that the arguments name. Raises SyntaxError, OSError."""
    words = sys.argv[1:]
    for shown, path in zip(words[::2], words[1::2], strict=True):
        code = compile(read(path), shown, "exec", dont_inherit=True, optimize=2)
        data = marshal.dumps(code)
        write(len(data).to_bytes(4, "little") + data)
    return 0


def read(path: str) -> bytes:
    """A whole file, without io."""
    descriptor = posix.open(path, posix.O_RDONLY)
    data = b""
    while piece := posix.read(descriptor, 1 << 20):
        data += piece
    posix.close(descriptor)
    return data


def write(data: bytes) -> None:
    """All of it to standard output."""
    while data:
        data = data[posix.write(1, data) :]
