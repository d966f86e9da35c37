"""The settings that a run's key leaves out, each with its reason. A setting that is named nowhere here counts, so a new one does too.

neutral.TRAINER["logger"]       # "it only writes down what happens"

Three kinds are left out: settings that change no result, settings that change it by rounding only (`..._TO_ROUNDING`, which run.json
records as `computed_with`), and names of places, whose content counts instead (`..._BY_CONTENT`).
"""

from __future__ import annotations

ROUNDS = "it changes results by rounding only"
WATCHES = "it only writes down or shows what happens"
COSTS = "it changes time and memory only"
PLACE = "it names a place; what lies there counts by its content"
TEXTS = "the key covers the texts of the examples that it leads to"

# --- settings of the command itself --------------------------------------------------------------------------------------------
RUN = {
    "run_folder": "it names the place where the result goes",
    "checkpoint_every_n_steps": "a run that goes on from a checkpoint ends with the same weights",
    "weights_only": "a checkpoint is never unpickled, whatever it says",
    "verbose": WATCHES,
    "config": "the settings of the file count themselves",
}
RUN_BY_CONTENT = {"ckpt_path": PLACE}

# --- settings of the trainer -----------------------------------------------------------------------------------------------------
# Names and numbers; a class with settings of its own counts, because it may for example compress gradients.
TRAINER_TO_ROUNDING = dict.fromkeys(("accelerator", "devices", "num_nodes", "strategy", "benchmark", "deterministic"), ROUNDS)
TRAINER = {
    "logger": WATCHES,
    "log_every_n_steps": WATCHES,
    "enable_progress_bar": WATCHES,
    "enable_model_summary": WATCHES,
    "enable_autolog_hparams": WATCHES,
    "model_registry": WATCHES,
    "profiler": WATCHES,
    "default_root_dir": "the run folder takes its place",
    "enable_checkpointing": "a run that goes on from a checkpoint ends with the same weights",
    "detect_anomaly": "it stops a run that meets a NaN and changes no other",
    "inference_mode": "it chooses how validation does without gradients",
    "accumulate_grad_batches": "it follows from data.batch_size and data.micro_batch_size, and another value is refused",
}
# Callbacks of Lightning and of this package that look on; any other callback counts with all its settings.
CALLBACKS = {
    "DeviceStatsMonitor": WATCHES,
    "LearningRateMonitor": WATCHES,
    "ModelCheckpoint": WATCHES,
    "ModelSummary": WATCHES,
    "RichModelSummary": WATCHES,
    "RichProgressBar": WATCHES,
    "TQDMProgressBar": WATCHES,
    "Throughput": WATCHES,
}

# --- settings of the backbone ------------------------------------------------------------------------------------------------------
BACKBONE_TO_ROUNDING = dict.fromkeys(("attention", "compile", "cross_entropy", "gradient_checkpointing", "shortcuts"), ROUNDS)
BACKBONE_BY_CONTENT = {
    "model": PLACE,
    "tokenizer": PLACE,
    "chat_template_from": PLACE,
    "adapter": PLACE,
    "revision": "the commit of the Hub model counts, to which it leads",
    "scratch": "it counts where there is no `model`, and is not read otherwise",
}

# --- settings of data, modules and probes --------------------------------------------------------------------------------------------
DATA_TO_ROUNDING = {"micro_batch_size": ROUNDS}
DATA = {"num_workers": COSTS}
DATA_BY_CONTENT = dict.fromkeys(
    (
        "source", "held_out_source", "data_root", "train_examples", "prompt_field", "response_field", "alternative_field", "response_text",
        "leave_out", "prompt_template", "data_seed",
    ),
    TEXTS,
)  # fmt: skip
# Settings of the data on which a probe measures.
MEASURED = dict.fromkeys(("batch_size", "bucket_batches", "seed"), "a probe measures examples one by one and in their own order")
# What no text of a stage of this package depends on, so that its texts are read once for all values of these.
BEYOND_TEXTS = frozenset({*MEASURED, *DATA_TO_ROUNDING, *DATA})
# These are sorted by the class that defines the setting; they hold for the classes that inherit it as well.
MODULES = {"Unlearning": {"cache_reference": "the same reference is computed once or in every step"}}
# Settings of probes that do not change what one finds in a model. No probe is part of a run's key, because measuring changes no weights.
PROBES = {
    "Probe": {"every_n_steps": "it says at which steps is measured, and not what", "name": "it names the place of the records"},
    "PathDivergence": dict.fromkeys(("retrained", "others"), "distances to other runs are read off their records and change no weights"),
    "Compared": {"retrained": "what the retrained model's records add is read off them and changes no weights"},
    "RetrainedDistribution": {"retrained": "which model it is compared with is named anew by --against"},
    "GSM8KAccuracy": {"generation_batch_size": COSTS},
    "GreedyContinuation": {"generation_batch_size": COSTS},
    "ResponseMatch": {"generation_batch_size": COSTS},
}

# --- what the reference file leaves out beyond this ------------------------------------------------------------------------------------
NOT_TRAINED = "the starting model's values are computed before training"
REFERENCE_PARTS = {
    "model": "objective, optimizer and schedule: " + NOT_TRAINED,
    "retain": NOT_TRAINED,
    "code": "the source of the data, of callbacks and of what an objective says of likelihoods is looked up apart",
}
REFERENCE_RUN = {"seed_everything": "random weights follow from backbone.seed"}
REFERENCE_TRAINER = dict.fromkeys(
    (
        "max_epochs", "max_steps", "max_time", "min_epochs", "min_steps", "gradient_clip_val", "gradient_clip_algorithm",
        "limit_train_batches", "fast_dev_run",
    ),
    NOT_TRAINED,
)  # fmt: skip
REFERENCE_BACKBONE = {"lora": "the trained adapter is switched off; whether there is one counts"}
REFERENCE_DATA = dict.fromkeys(("seed", "batch_size", "bucket_batches", "held_out_examples"), "values are kept example by example")
