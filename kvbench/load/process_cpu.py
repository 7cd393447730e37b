"""How much processor time a tree of processes used within a window that is known only afterwards."""

from __future__ import annotations

import time

import numpy as np


class CpuWatch:
    """Samples of the processor time of each process of a tree, with the wall-clock instant of each."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._seen: dict[str, tuple[list[int], list[float]]] = {}

    def sample(self, pid: int) -> None:
        """Note how much each process has used until now; one that ends meanwhile is left out."""
        import psutil  # noqa: PLC0415 - a run that needs no such watch shall start without it

        try:
            root = psutil.Process(pid)
            tree = [root, *root.children(recursive=True)]
        except psutil.Error:
            return
        for process in tree:
            try:
                title, used = " ".join(process.cmdline()).strip(), process.cpu_times()
            except psutil.Error:
                continue
            times_ns, used_s = self._seen.setdefault(title or str(process.pid), ([], []))
            times_ns.append(time.time_ns())
            used_s.append(used.user + used.system)

    def between(self, start_ns: int, end_ns: int) -> dict[str, float]:
        """Return the processor seconds of each process, by its title, within the window; interpolated."""
        return {
            title: float(np.interp(end_ns, times_ns, used_s) - np.interp(start_ns, times_ns, used_s))
            for title, (times_ns, used_s) in self._seen.items()
        }
