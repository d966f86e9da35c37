"""Where a study's runs are executed: on this machine (`local`), on a cluster (`slurm`), or wherever a class of yours puts them.

    unlearn study configs/studies/demo.yaml --launcher local --launcher.jobs 2
    unlearn study configs/studies/demo.yaml --launcher my_unlearning.launcher.Prefixed --launcher.prefix 'nice -n 19'

A launcher decides nothing about results: the same runs come out of each, and what one began another goes on with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unlearn_lightning.study.work import Work


class Launcher(ABC):
    """Executes a study's runs."""

    @abstractmethod
    def launch(self, work: Work) -> bool:
        """Executes the runs that are not finished, or submits them to where they will be executed.

        Returns:
            True when every run that can be executed now is; the study then makes its report. False when they go on elsewhere.

        Raises:
            ValueError: the runs cannot be launched like this; nothing was started.
        """


def launcher_names() -> list[str]:
    """The class names of the launchers that there are: built in, and of plug-ins."""
    found, waiting = [], [Launcher]
    while waiting:
        below = waiting.pop().__subclasses__()
        found += [launcher.__name__ for launcher in below]
        waiting += below
    return found


def launcher_name(name: str) -> str:
    """The class name behind a launcher's name in any case, such as Slurm for `slurm`; others are left as they are."""
    return next((known for known in launcher_names() if known.lower() == name.lower()), name)
