"""Pickle's stack machine over plain data: what the opcodes of a file make, without a function of anyone else's.

The standard library's `pickletools` decodes the opcodes; `pickle` itself is not used. Time and memory are bounded by
the size of the file and by the number of opcodes, never by what the file declares.
"""

import io
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_OPCODES = 500_000
"""Of a file with all that it nests; snapshots have tens of thousands."""

_MARK = object()


class RefusedError(ValueError):
    """The file asks for something that a snapshot has no need of; the message says what."""


@dataclass(frozen=True)
class Global:
    """A name on the stack; `call` is what stands for it here."""

    name: str
    call: Callable[..., Any]


def shown(value: Any) -> str:
    """A value from a file for a message: in one short line, with everything unprintable escaped."""
    if isinstance(value, str):
        text = ascii(value[:200])[1:-1]
    elif value is None or isinstance(value, bool | int | float):
        text = repr(value)
    else:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 120 else text[:117] + "..."


class Machine:
    """Pickle's stack machine over the opcodes of protocols 2 to 5 that plain data needs."""

    def __init__(self, num_bytes: int, build: Callable[[Any, Any], None]) -> None:
        """For a file of that many bytes; `build` is called with an object and the state that the file gives it."""
        self.build = build
        self.opcodes_left = MAX_OPCODES
        self.bytes_left = 2 * num_bytes  # that may be decoded a second time: as text of protocol 2, inside a tensor

    def charge(self, num_bytes: int) -> None:
        """Counts work on bytes that a short loop of opcodes could ask for again and again."""
        self.bytes_left -= num_bytes
        if self.bytes_left < 0:
            raise RefusedError("it has the same bytes read again and again")

    def run(self, file: io.BytesIO, known: Mapping[str, Callable[..., Any]], persistent: bool = False) -> Any:
        """The value of the pickle at the file's position, which moves behind it."""
        stack: list[Any] = []
        memo: dict[int, Any] = {}

        def pop_mark() -> list[Any]:
            items: list[Any] = []
            while (item := stack.pop()) is not _MARK:
                items.append(item)
            items.reverse()
            return items

        def pop() -> Any:
            item = stack.pop()
            if item is _MARK:
                raise ValueError("a mark where a value should be")
            return item

        argument: Any
        for opcode, argument, _ in pickletools.genops(file):
            self.opcodes_left -= 1
            if self.opcodes_left < 0:
                raise RefusedError(f"it has more than {MAX_OPCODES:,} pickle opcodes")
            match opcode.name:
                case "PROTO" | "FRAME":
                    pass
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case (
                    "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "SHORT_BINUNICODE" | "BINUNICODE"
                    | "BINUNICODE8" | "SHORT_BINBYTES" | "BINBYTES" | "BINBYTES8"
                ):  # fmt: skip
                    stack.append(argument)
                case "NONE":
                    stack.append(None)
                case "NEWTRUE":
                    stack.append(True)
                case "NEWFALSE":
                    stack.append(False)
                case "MARK":
                    stack.append(_MARK)
                case "POP":
                    stack.pop()
                case "POP_MARK":
                    pop_mark()
                case "EMPTY_TUPLE":
                    stack.append(())
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    stack.append(tuple([pop() for _ in range(int(opcode.name[-1]))][::-1]))
                case "TUPLE":
                    stack.append(tuple(pop_mark()))
                case "EMPTY_LIST" | "EMPTY_SET":
                    stack.append([])
                case "FROZENSET":
                    stack.append(pop_mark())
                case "APPEND":
                    items = [pop()]
                    of_type(list, stack[-1]).extend(items)
                case "APPENDS" | "ADDITEMS":
                    items = pop_mark()
                    of_type(list, stack[-1]).extend(items)
                case "EMPTY_DICT":
                    stack.append({})
                case "SETITEM":
                    items = [pop(), pop()][::-1]
                    _update(stack[-1], items)
                case "SETITEMS":
                    items = pop_mark()
                    _update(stack[-1], items)
                case "GLOBAL":
                    module, name = argument.split(" ", 1)
                    stack.append(_find(module, name, known))
                case "STACK_GLOBAL":
                    name, module = pop(), pop()
                    stack.append(_find(of_type(str, module), of_type(str, name), known))
                case "REDUCE" | "NEWOBJ":
                    arguments, function = of_type(tuple, pop()), of_type(Global, pop())
                    stack.append(function.call(self, *arguments))
                case "BUILD":
                    state = pop()
                    self.build(stack[-1], state)
                case "BINPERSID" if persistent:  # what it names is what it stands for
                    pass
                case "STOP":
                    return pop()
                case name:
                    raise RefusedError(f"it uses the pickle opcode {name}, which no snapshot has")
        raise ValueError("no end")


def of_type(kind: type, value: Any) -> Any:
    """The value. Raises ValueError if it is of another type."""
    if not isinstance(value, kind):
        raise ValueError(f"{value.__class__.__name__} where {kind.__name__} should be")
    return value


def _update(target: Any, items: list[Any]) -> None:
    # Text alone has a hash that a file cannot choose: equal hashes would make this take hours.
    for key, value in zip(items[::2], items[1::2], strict=True):
        of_type(dict, target)[of_type(str, key)] = value


def _find(module: str, name: str, known: Mapping[str, Callable[..., Any]]) -> Global:
    full_name = f"{module}.{name}"
    if full_name in known:
        return Global(full_name, known[full_name])
    if module.startswith("dnnlib.tflib"):
        raise RefusedError(
            "it is a network of the TensorFlow implementation; convert it with the official "
            "stylegan2-ada-pytorch: python legacy.py --source=old.pkl --dest=new.pkl"
        )
    raise RefusedError(
        f"it asks for {shown(full_name)}, which no StyleGAN2-ADA snapshot needs; do not load this file with other tools"
    )
