"""What is read is checked: a file that was cut, edited or overwritten is named in one line, whatever file and damage it is."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from fault_cases import CUT, DAMAGES, FLIPPED, damaged, told_in_a_line
from study_runs import fit, run_json, settings

from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.main import main
from unlearn_lightning.modules.reference_file import ReferenceFile
from unlearn_lightning.records import is_finished, read_json, read_run, records_of
