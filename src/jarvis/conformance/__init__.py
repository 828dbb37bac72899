"""The contract of a storage backend as a test suite, for your backends and ours.

Subclass `BackendContract` and give it one fixture. Pytest then tests every promise that the backend makes; tests of
capabilities that it lacks are skipped with a message. Run pytest with
``-p jarvis.conformance.plugin`` to see the table of promises.

Example::

    import pytest
    from jarvis.conformance import BackendContract, machine

    class TestMyBackend(BackendContract):
        @pytest.fixture
        def open_backend(self, tmp_path):
            return lambda: MyBackend(tmp_path / "store")

    TestMyBackendMachine = machine(lambda directory: MyBackend(directory / "store")).TestCase
"""

import pkgutil

import pytest

# Failed asserts show their values only in modules that are registered with pytest before their import.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

from jarvis.conformance.asking import AskingPromises
from jarvis.conformance.callers import CallerPromises
from jarvis.conformance.compression import CompressionPromises
from jarvis.conformance.erasure import ErasurePromises
from jarvis.conformance.expiry import ExpiryPromises
from jarvis.conformance.explaining import ExplainingPromises
from jarvis.conformance.feed import FeedPromises
from jarvis.conformance.filters import FilterPromises
from jarvis.conformance.history import HistoryPromises
from jarvis.conformance.listing import ListingPromises
from jarvis.conformance.machine import BackendMachine, machine
from jarvis.conformance.module.analytics import AnalyticsPromises
from jarvis.conformance.module.changes import ChangePromises
from jarvis.conformance.module.contexts import ContextPromises
from jarvis.conformance.module.conversations import ConversationPromises
from jarvis.conformance.module.creating import CreatingPromises
from jarvis.conformance.module.dating import DatingPromises
from jarvis.conformance.module.many import ManyPromises
from jarvis.conformance.module.policies import PolicyPromises
from jarvis.conformance.module.renewals import RenewalPromises
from jarvis.conformance.module.retention import RetentionPromises
from jarvis.conformance.module.searching import SearchingPromises
from jarvis.conformance.module.shutdown import ShutdownPromises
from jarvis.conformance.module.table import TablePromises
from jarvis.conformance.module.verbs import ModulePromises
from jarvis.conformance.namespaces import NamespacePromises
from jarvis.conformance.sliding import SlidingPromises
from jarvis.conformance.transactions import SharedCommitPromises, TransactionPromises
from jarvis.conformance.transferring import TransferPromises
from jarvis.conformance.value_filters import ValueFilterPromises
from jarvis.conformance.values import ValuePromises
from jarvis.conformance.vectors import VectorPromises
from jarvis.conformance.verbs import VerbPromises
from jarvis.conformance.versions import VersionPromises
from jarvis.conformance.words import WordPromises

__all__ = ["BackendContract", "BackendMachine", "machine"]


class BackendContract(
    VerbPromises,
    FilterPromises,
    AskingPromises,
    ValueFilterPromises,
    ExplainingPromises,
    ListingPromises,
    ValuePromises,
    TransactionPromises,
    SharedCommitPromises,
    CallerPromises,
    NamespacePromises,
    HistoryPromises,
    ExpiryPromises,
    SlidingPromises,
    TransferPromises,
    ErasurePromises,
    CompressionPromises,
    FeedPromises,
    VersionPromises,
    WordPromises,
    VectorPromises,
    ModulePromises,
    CreatingPromises,
    ManyPromises,
    ChangePromises,
    RenewalPromises,
    DatingPromises,
    RetentionPromises,
    PolicyPromises,
    ShutdownPromises,
    SearchingPromises,
    ConversationPromises,
    ContextPromises,
    TablePromises,
    AnalyticsPromises,
):
    """Tests every promise. A subclass provides the fixture `open_backend`."""
