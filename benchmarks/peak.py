"""How much memory this process ever had."""

from __future__ import annotations

import resource
import sys


def peak_kib() -> int:
    """Return the peak of this process, in KiB."""
    # Not getrusage's figure where there is another: a new process inherits that one from its parent.
    try:
        with open("/proc/self/status") as status:
            return int(status.read().partition("VmHWM:")[2].split()[0])
    except FileNotFoundError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // 1024 if sys.platform == "darwin" else peak
