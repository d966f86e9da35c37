"""From run folders to tables, figures and one HTML page. Reads records only, never models, and does not import torch.

from unlearn_lightning.report import build
build(Path("studies/demo")).print()
"""

from unlearn_lightning.report.report import Report, build

__all__ = ["Report", "build"]
