"""How a run ends in W&B: at once, and called failed there where it failed."""

import sys


def end_in_wandb(failed: bool = False) -> None:
    """Ends the run that W&B has open, if it has one.

    W&B would end it by itself when the process does, and call it finished, since a command that says an error in one line raises nothing.
    Its last words also come before that line and not after it.
    """
    # wandb is imported only where a run logs to it, because that takes a second.
    if wandb := sys.modules.get("wandb"):
        wandb.finish(exit_code=int(failed))
