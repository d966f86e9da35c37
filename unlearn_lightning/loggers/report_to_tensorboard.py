"""A report as TensorBoard shows it: figures as images, tables and verdict as texts.

Written as the event file's own messages, which need no torch: a PNG file goes in as it is.
"""

import shutil
import struct
import time
from pathlib import Path
from typing import Any

from unlearn_lightning.loggers.logged_report import LoggedReport

RGBA = 4


def log(report: LoggedReport, settings: dict[str, Any]) -> str:
    """Writes one event file into the study folder's tensorboard/, in the place of an earlier report's.

    Args:
        report: what is logged.
        settings: of the runs' TensorBoardLogger; `name`, the folder's, counts.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    folder = report.study.folder / (settings.get("name") or "tensorboard")
    shutil.rmtree(folder, ignore_errors=True)
    texts = {"headline": report.verdict.headline}
    texts |= {f"tables/{name}": table.markdown() for name, table in report.tables.items()}
    values = [_text(name, text) for name, text in texts.items()]
    values += [_image(f"figures/{name}", path) for name, path in report.figures.items()]
    writer = EventFileWriter(str(folder))
    writer.add_event(Event(wall_time=time.time(), step=0, summary=Summary(value=values)))
    writer.close()
    return f"TensorBoard: {folder}"


def _text(tag: str, text: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode()], tensor_shape=shape)
    shown_by = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    # The suffix is how TensorBoard's text page knows its own.
    return Summary.Value(tag=f"{tag}/text_summary", metadata=shown_by, tensor=tensor)


def _image(tag: str, path: Path) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    png = path.read_bytes()
    # A PNG file's first chunk holds its width and height behind 16 bytes (PNG specification, section 11.2.2).
    width, height = struct.unpack(">II", png[16:24])
    return Summary.Value(tag=tag, image=Summary.Image(width=width, height=height, colorspace=RGBA, encoded_image_string=png))
