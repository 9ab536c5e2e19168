"""The language's own commands: ``:put``, ``:if``, ``:onerror``, ``:serialize`` and the others."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from rds_csi.simulator.language import operators, serialise
from rds_csi.simulator.language.interpreter import Function, Interpreter, ReturnSignal, Scope
from rds_csi.simulator.language.syntax import Binary, Command, Literal, Node, Script, Variable
from rds_csi.simulator.language.values import (
    NIL,
    Array,
    Duration,
    Id,
    RuntimeFault,
    Value,
    array_of,
    is_id,
    number_of,
    parse_duration,
    text_of,
    truth_of,
    type_of,
)


class Arguments:
    """The arguments of one command, evaluated when asked for."""

    def __init__(self, interpreter: Interpreter, command: Command, scope: Scope) -> None:
        self.interpreter = interpreter
        self.scope = scope
        self._nodes: Mapping[str, Node] = command.arguments

    def given(self, name: str) -> bool:
        """Whether the argument stands there."""
        return name in self._nodes

    def node(self, name: str) -> Node:
        """The argument unevaluated; a fault when it is missing."""
        if name not in self._nodes:
            raise RuntimeFault(f"missing value(s) of argument(s) {name}")
        return self._nodes[name]

    async def value(self, name: str) -> Value:
        """The argument's value; a fault when it is missing."""
        return await self.interpreter.evaluate(self.node(name), self.scope)

    async def optional(self, name: str, default: Value = None) -> Value:
        """The argument's value, or the default."""
        return await self.value(name) if self.given(name) else default

    async def run(self, name: str, scope: Scope | None = None) -> Value:
        """Run a block; nothing happens when it is missing."""
        block = self._nodes.get(name)
        if not isinstance(block, Script):
            return None
        return await self.interpreter.run(block, scope or self.scope)


async def run_language_command(interpreter: Interpreter, command: Command, scope: Scope) -> Value:
    """Run one; its value."""
    return await _COMMANDS[command.verb](Arguments(interpreter, command, scope))


async def _put(arguments: Arguments) -> Value:
    arguments.interpreter.write(text_of(await arguments.value("message")))
    return None


# Variables


def _name(node: Node) -> str:
    if isinstance(node, Literal) and isinstance(node.value, str):
        return node.value
    raise RuntimeFault("expected variable name")


async def _new_value(arguments: Arguments) -> Value | Function:
    if arguments.given("do"):
        block = arguments.node("do")
        return Function(block) if isinstance(block, Script) else None
    return await arguments.optional("value")


async def _local(arguments: Arguments) -> Value:
    value = await _new_value(arguments)
    arguments.interpreter.declare(_name(arguments.node("name")), value, arguments.scope)
    return None


async def _global(arguments: Arguments) -> Value:
    value = await _new_value(arguments)
    name = _name(arguments.node("name"))
    arguments.interpreter.declare_global(name, value, arguments.scope)
    return None


async def _set(arguments: Arguments) -> Value:
    target, value = arguments.node("name"), await _new_value(arguments)
    if isinstance(target, Binary) and target.operator == "->":
        await _set_entry(arguments, target, None if isinstance(value, Function) else value)
    else:
        arguments.interpreter.assign(_name(target), value, arguments.scope)
    return None


async def _set_entry(arguments: Arguments, target: Binary, value: Value) -> None:
    """``:set ($array->key) value``."""
    container = await arguments.interpreter.evaluate(target.left, arguments.scope)
    key = await arguments.interpreter.evaluate(target.right, arguments.scope)
    if container is None and isinstance(target.left, Variable):
        container = Array()
        arguments.interpreter.assign(target.left.name, container, arguments.scope)
    if not isinstance(container, Array):
        raise RuntimeFault("value is not an array")
    if isinstance(key, int) and 0 <= key < len(container.items):
        container.items[key] = value
    else:
        container.keys[text_of(key)] = value


# Flow


async def _if(arguments: Arguments) -> Value:
    condition = operators.truth(await arguments.value("condition"))
    return await arguments.run("do" if condition else "else")


async def _do(arguments: Arguments) -> Value:
    if arguments.given("on-error"):
        try:
            return await arguments.run("command")
        except RuntimeFault:
            return await arguments.run("on-error")
    result = await arguments.run("command")
    while arguments.given("while") and operators.truth(await arguments.value("while")):
        await asyncio.sleep(0)
        result = await arguments.run("command")
    return result


async def _while(arguments: Arguments) -> Value:
    while operators.truth(await arguments.value("condition")):
        await asyncio.sleep(0)
        await arguments.run("do")
    return None


async def _for(arguments: Arguments) -> Value:
    first = operators.number(await arguments.value("from"))
    last = operators.number(await arguments.value("to"))
    step = operators.number(await arguments.optional("step", 1 if first <= last else -1))
    if step == 0:
        raise RuntimeFault("step must not be zero")
    name = _name(arguments.node("counter"))
    for number in range(first, last + (1 if step > 0 else -1), step):
        await arguments.run("do", Scope(arguments.scope, {name: number}))
    return None


async def _foreach(arguments: Arguments) -> Value:
    names = _name(arguments.node("counter")).split(",")
    array = array_of(await arguments.value("in"))
    for key, value in list(array.entries()):
        pair = (value,) if len(names) == 1 else (key, value)
        scope = Scope(arguments.scope, dict(zip(names, pair, strict=True)))
        await arguments.run("do", scope)
    return None


async def _onerror(arguments: Arguments) -> Value:
    name = _name(arguments.node("name"))
    arguments.node("in")
    try:
        await arguments.run("in")
    except RuntimeFault as fault:
        await arguments.run(
            "do", Scope(arguments.scope, {name: arguments.interpreter.caught(fault)})
        )
        return True
    return False


async def _retry(arguments: Arguments) -> Value:
    """Run a block until it does not fail; ``max`` times at most, 0 means not at all."""
    pause = await arguments.optional("delay", Duration(0))
    seconds = pause.milliseconds / 1000 if isinstance(pause, Duration) else operators.number(pause)
    for left in reversed(range(operators.number(await arguments.value("max")))):
        try:
            return await arguments.run("command")
        except RuntimeFault:
            if left:
                await asyncio.sleep(seconds)
            elif arguments.given("on-error"):
                return await arguments.run("on-error")
            else:
                raise
    return None


async def _error(arguments: Arguments) -> Value:
    raise RuntimeFault(text_of(await arguments.optional("message", "")))


async def _return(arguments: Arguments) -> Value:
    raise ReturnSignal(await arguments.value("value"))


async def _delay(arguments: Arguments) -> Value:
    value = await arguments.optional("delay-time", 1)
    duration = parse_duration(value) if isinstance(value, str) else value
    if isinstance(duration, Duration):
        await asyncio.sleep(duration.milliseconds / 1000)
    else:
        await asyncio.sleep(operators.number(duration))
    return None


async def _nothing(_: Arguments) -> Value:
    return None


async def _log(arguments: Arguments) -> Value:
    await arguments.value("message")
    return None


# Values


async def _len(arguments: Arguments) -> Value:
    value = await arguments.value("value")
    return len(value) if isinstance(value, Array) else len(text_of(value))


async def _pick(arguments: Arguments) -> Value:
    value = await arguments.value("value")
    begin = operators.number(await arguments.value("begin"))
    end_value = await arguments.optional("end")
    end = begin + 1 if end_value is None else operators.number(end_value)
    if isinstance(value, Array):
        picked = value.values()[max(begin, 0) : max(end, 0)]
        if end_value is None:
            return picked[0] if picked else NIL
        return Array(picked)
    return text_of(value)[max(begin, 0) : max(end, 0)]


async def _find(arguments: Arguments) -> Value:
    value, key = await arguments.value("value"), await arguments.value("key")
    start = number_of(await arguments.optional("start", -1))
    begin = 0 if start is None else start + 1
    if isinstance(value, Array):
        for position, item in enumerate(value.values()):
            if position >= begin and operators.equal(item, key):
                return position
        return NIL
    position = text_of(value).find(text_of(key), begin)
    return NIL if position < 0 else position


async def _typeof(arguments: Arguments) -> Value:
    return type_of(await arguments.value("value"))


async def _tostr(arguments: Arguments) -> Value:
    return text_of(await arguments.value("value"))


async def _tonum(arguments: Arguments) -> Value:
    number = number_of(await arguments.value("value"))
    return NIL if number is None else number


async def _tobool(arguments: Arguments) -> Value:
    truth = truth_of(await arguments.value("value"))
    return NIL if truth is None else truth


async def _toid(arguments: Arguments) -> Value:
    text = text_of(await arguments.value("value"))
    return Id(text) if is_id(text) else NIL


async def _totime(arguments: Arguments) -> Value:
    value = await arguments.value("value")
    seconds = number_of(value)
    if seconds is not None:
        return Duration(seconds * 1000)
    return parse_duration(text_of(value)) or NIL


async def _toarray(arguments: Arguments) -> Value:
    return array_of(await arguments.value("value"))


async def _serialize(arguments: Arguments) -> Value:
    if await arguments.value("to") != "json":
        raise RuntimeFault("input does not match any value of to")
    return serialise.to_json(await arguments.value("value"), await _options(arguments))


async def _deserialize(arguments: Arguments) -> Value:
    if await arguments.value("from") != "json":
        raise RuntimeFault("input does not match any value of from")
    text = text_of(await arguments.value("value"))
    return serialise.from_json(text, await _options(arguments))


async def _options(arguments: Arguments) -> frozenset[str]:
    """Words separated by commas, or an array of them."""
    value = await arguments.optional("options", "")
    return frozenset(text_of(item) for item in array_of(value).values())


_COMMANDS: Final[dict[str, Callable[[Arguments], Awaitable[Value]]]] = {
    "put": _put,
    "local": _local,
    "global": _global,
    "set": _set,
    "if": _if,
    "do": _do,
    "while": _while,
    "for": _for,
    "foreach": _foreach,
    "onerror": _onerror,
    "retry": _retry,
    "error": _error,
    "return": _return,
    "delay": _delay,
    "nothing": _nothing,
    "log": _log,
    "len": _len,
    "pick": _pick,
    "find": _find,
    "typeof": _typeof,
    "tostr": _tostr,
    "tonum": _tonum,
    "tobool": _tobool,
    "toid": _toid,
    "totime": _totime,
    "toarray": _toarray,
    "serialize": _serialize,
    "deserialize": _deserialize,
}
