"""Staged fine-tuning and unlearning of language models, measured at every step.

From the shell: `unlearn study configs/studies/demo.yaml`. The README's architecture section names every room.
"""

__version__ = "0.1.0"
