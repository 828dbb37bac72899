"""``doctor``: what is wrong with a store, or could be better, and the command that mends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import typer

from jarvis.config import ConfigLoader
from jarvis.interfaces.cli.binding import common_options, signed
from jarvis.interfaces.cli.failing import DAMAGED, NOT_FOUND, in_commands
from jarvis.interfaces.cli.session import Session
from jarvis.interfaces.cli.showing import say, show, write
from jarvis.interfaces.doctor import examine
from jarvis.interfaces.readable import safe
from jarvis.interfaces.stores import find
from jarvis.services.places import store_file


def _doctor(**given: Any) -> None:
    session = Session.of(given)
    found = find(session.choice, create=False)
    path = ConfigLoader(session.choice.config).path
    findings = [
        msgspec.structs.replace(finding, explanation=in_commands(finding.explanation))
        for finding in examine(found.location, config=path if path.exists() else None, keys=session.choice.keys)
    ]
    if session.look.form != "usual":
        show(findings, session.look)
    elif not findings:
        write(f"{safe(found.place)} is in good health")
    else:
        for finding in findings:
            write(f"{finding.severity}: {safe(finding.subject)}")
            write(f"  {safe(finding.explanation)}")
            write(f"  $ {safe(finding.command)}")
    if found.note is not None and not session.look.quiet:
        say(found.note)
    if "://" not in found.location and store_file(Path(found.location)) is None:
        raise typer.Exit(NOT_FOUND)
    if any(finding.severity == "problem" for finding in findings):
        raise typer.Exit(DAMAGED)


doctor = signed(_doctor, common_options(), "doctor", "Say what is wrong with the store, and which command mends it.")
