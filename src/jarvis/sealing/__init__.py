"""`SealedBackend`: seals what another backend stores, so that its database shows neither values nor names."""

from jarvis.sealing.backend import SealedBackend

__all__ = ["SealedBackend"]
