"""How much processor time a tree of processes used within a window that is known only afterwards."""

from __future__ import annotations

import time

import numpy as np
import psutil


class CpuWatch:
    """Samples of the processor time of each process of a tree, with the wall-clock instant of each."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._seen: dict[tuple[int, float], tuple[list[int], list[float]]] = {}
        self._titles: dict[tuple[int, float], str] = {}

    def sample(self, pid: int) -> None:
        """Note how much each process has used until now; one that ends meanwhile is left out."""
        try:
            root = psutil.Process(pid)
            tree = [root, *root.children(recursive=True)]
        except psutil.Error:
            return
        for process in tree:
            try:
                key, title, used = (process.pid, process.create_time()), process.cmdline(), process.cpu_times()
            except psutil.Error:
                continue
            self._titles[key] = " ".join(title).strip() or str(process.pid)
            times_ns, used_s = self._seen.setdefault(key, ([], []))
            times_ns.append(time.time_ns())
            used_s.append(used.user + used.system)

    def between(self, start_ns: int, end_ns: int) -> list[tuple[str, float]]:
        """Return for each process its last title and its processor seconds within the window; interpolated."""
        return [
            (self._titles[key], float(np.interp(end_ns, times_ns, used_s) - np.interp(start_ns, times_ns, used_s)))
            for key, (times_ns, used_s) in self._seen.items()
        ]
