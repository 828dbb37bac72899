"""The check of the file of settings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from jarvis.config import ConfigLoader
from jarvis.errors import InvalidSettingError, MisplacedSettingWarning
from jarvis.interfaces.doctor.finding import Finding
from jarvis.interfaces.doctor.patient import Patient


def settings(patient: Patient) -> Iterator[Finding]:
    """A file of settings that is refused, or has settings that do nothing."""
    if patient.config is None:
        return
    path = str(patient.config)
    command = f"jarvis-memory --config {patient.quoted(path)} config check"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            storage = ConfigLoader(patient.config).load().storage
        except InvalidSettingError as error:
            yield Finding("settings", "problem", path, str(error).removeprefix(f"{path}: "), command)
            return
    for warning in caught:
        if issubclass(warning.category, MisplacedSettingWarning):
            said = str(warning.message).removeprefix(f"{path}: ")
            yield Finding("settings", "advice", path, said, command)
    is_plain = (
        patient.memory is not None and patient.memory.backend.name in ("sqlite", "postgresql") and not patient.slots
    )
    if storage.encryption == "on" and is_plain:
        said = "says encryption: on, which is for new stores; this one is plain, and stays so until it is encrypted"
        yield Finding("settings", "problem", path, said, patient.command("encrypt", "passphrase"))
