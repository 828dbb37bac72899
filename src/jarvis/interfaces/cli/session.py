"""`Session`: one run of a command: it opens the store, asks, runs an operation, shows the result, and closes."""

from __future__ import annotations

import getpass
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar

import msgspec
import typer

from jarvis.errors import StoreMissingError
from jarvis.interfaces.cli.failing import DAMAGED, REFUSED
from jarvis.interfaces.cli.progress import progressing
from jarvis.interfaces.cli.sheets import name_of
from jarvis.interfaces.cli.showing import Look, is_terminal, say, show
from jarvis.interfaces.operation import Operation, Plan
from jarvis.interfaces.readable import cut, json_text, safe
from jarvis.interfaces.stores import Choice, find
from jarvis.model.salvaged import Verification
from jarvis.model.transfers import ImportReport
from jarvis.persistent_memory import MemoryModule

_OPTIONS = (
    *("store", "backend", "namespace", "config", "unlock", "as_json", "as_jsonl", "exact", "full", "quiet"),
    *("author", "yes", "dry_run"),
)
"""The options that are the same for many commands."""

CREATING = frozenset(("set", "remember", "record_turn", "import", "init"))
"""Operations that make the store if there is none. Looking never does."""

_SHOWN = 140


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one run of a command: which store, how results are shown, and whether to ask.

    Attributes:
        author: who makes changes; None for the usual one.
        as_of: the moment that stood before the command.
    """

    choice: Choice
    look: Look
    author: str | None = None
    yes: bool = False
    dry_run: bool = False
    as_of: datetime | None = None

    root: ClassVar[Mapping[str, Any]] = {}
    """The options that stand before the command."""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Session:
        """Return the session for the options of a command; those that it lacks are taken from before the command."""
        said = {name: given[name] if given.get(name) not in (None, False) else cls.root.get(name) for name in _OPTIONS}
        if said.get("as_json") and said.get("as_jsonl"):
            raise typer.BadParameter("give one of --json and --jsonl")
        choice = Choice(
            store=said.get("store"),
            backend=said.get("backend"),
            namespace=said.get("namespace"),
            config=said.get("config"),
            keys=tuple(said.get("unlock") or ()),
        )
        look = Look(
            form="json" if said.get("as_json") else "jsonl" if said.get("as_jsonl") else "usual",
            exact=bool(said.get("exact")),
            full=bool(said.get("full")),
            quiet=bool(said.get("quiet")),
        )
        return cls(
            choice=choice,
            look=look,
            author=said.get("author"),
            yes=bool(said.get("yes")),
            dry_run=bool(said.get("dry_run")),
            as_of=cls.root.get("as_of"),
        )

    @contextmanager
    def memory(self, *, create: bool = False, read_only: bool = False) -> Iterator[MemoryModule]:
        """Lend the memory of the store that is meant, and close it behind the block; its author is set."""
        found = find(self.choice, create=create, read_only=read_only)
        if found.note is not None and not self.look.quiet:
            say(found.note)
        with found.memory.acting_as(module=self.author or _usual_author()):
            try:
                yield found.memory
            except StoreMissingError as error:
                other = "name another one: --store PLACE"
                error.problem = f"{error.problem}\n  make one: jarvis-memory init; {other} (this one: {found.because})"
                raise
            finally:
                found.memory.shutdown()

    def run(self, operation: Operation[..., Any], values: dict[str, Any]) -> None:
        """Run an operation on the memory, and show its result; what destroys is announced and asked for before."""
        values = self.with_namespace(operation, self._with_root(operation, values))
        if not operation.needs_memory:
            with progressing(operation, self.look) as progress:
                self.show(operation.run(None, values, progress))
            return
        session = self
        if operation.name == "encrypt":  # a store on a server is opened with the keys that are to seal it
            keys = (*self.choice.keys, *values["keys"])
            choice = msgspec.structs.replace(self.choice, keys=keys, encryption="on")
            session, values = msgspec.structs.replace(self, choice=choice), {"keys": []}
        with session.memory(create=operation.name in CREATING) as memory:
            if operation.plan is not None and not self._agreed(lambda: operation.planned(memory, values)):
                return
            with progressing(operation, self.look) as progress:
                result = operation.run(memory, values, progress)
            show(result, self.look, changed_by=None if operation.effect == "reads" else operation.name)
        if _tells_of_damage(result):
            raise typer.Exit(DAMAGED)

    def with_namespace(self, operation: Operation[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values with the namespace that was named, for an operation on the whole store."""
        is_of_all = any(each.name == "only_namespace" for each in operation.parameters)
        if is_of_all and self.choice.namespace is not None and not values.get("only_namespace"):
            return {**values, "only_namespace": [self.choice.namespace]}
        return dict(values)

    def show(self, result: Any) -> None:
        """Write a result to the standard output."""
        show(result, self.look)

    def ask(self, question: str) -> bool:
        """Ask a person whether to go on; ``--yes`` says so for scripts.

        Raises:
            typer.Exit: there is nobody to ask.
        """
        if self.yes:
            return True
        if not is_terminal(sys.stdin):
            say("nothing was changed: there is no terminal to ask on; --yes goes on without asking")
            raise typer.Exit(REFUSED)
        return typer.confirm(question, err=True)

    def _agreed(self, planned: Callable[[], Plan | None]) -> bool:
        """Say what would be done, and ask; return whether to do it. Only that is done which was told."""
        plan = planned()
        if plan is None:
            return True
        if self.dry_run:
            self.show(plan if self.look.form != "usual" else _told(plan))
            return False
        if plan.count == 0:
            say(f"nothing to do: {plan.action}")
            return False
        if not self.yes:
            say("\n".join(_told(plan)))
        question = "Do it?" if plan.can_be_undone else "Do it? Nothing brings it back."
        if not self.ask(question):
            say("nothing was changed")
            raise typer.Exit(REFUSED)
        if not self.yes and planned() != plan:
            say("nothing was changed: by now it would do something else, because another program changed memories")
            raise typer.Exit(REFUSED)
        return True

    def _with_root(self, operation: Operation[..., Any], values: dict[str, Any]) -> dict[str, Any]:
        """Return the values with ``--as-of`` from before the command."""
        if self.as_of is None:
            return values
        if not any(each.name == "as_of" for each in operation.parameters):
            raise typer.BadParameter(f"{operation.name} does not take a moment of the past", param_hint="--as-of")
        return {"as_of": self.as_of, **values}


def _usual_author() -> str:
    """Return the usual author of changes that are made on the command line."""
    try:
        return f"jarvis-memory ({getpass.getuser()})"
    except (OSError, KeyError, ImportError):  # a user without a name
        return "jarvis-memory"


def _tells_of_damage(result: object) -> bool:
    if isinstance(result, Verification):
        return bool(result.problems)
    return isinstance(result, ImportReport) and bool(result.damaged)


def _told(plan: Plan) -> list[str]:
    lines = [f"This would {plan.action}{':' if plan.examples else '.'}"]
    width = shutil.get_terminal_size().columns if is_terminal(sys.stderr) else _SHOWN
    lines += [cut(f"  {safe(entry.id)}  {name_of(entry)}  {json_text(entry.value)}", width) for entry in plan.examples]
    if plan.count is not None and plan.examples and plan.count > len(plan.examples):
        lines.append(f"  … and {plan.count - len(plan.examples):,} more")
    return lines
