"""The lifecycle that fine-tuning and every objective share: weights built late, exact batch averages, small checkpoints.

class MyObjective(Unlearning):
    average = "examples"
    def loss(self, batch):                       # (B,) one value per example, before averaging
        return my_loss(self.response_log_likelihood(batch))
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from unlearn_lightning.data import Batch, StageData
from unlearn_lightning.inference import likelihood
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.models.sharding import shard, squared_norm
from unlearn_lightning.modules.path_check import decide_paths
from unlearn_lightning.modules.queries import Queries
from unlearn_lightning.schedule import PaperAdamW, WarmupStableDecay

ScheduleCallable = Callable[[Optimizer, int], LRScheduler]


class CausalLMModule(Queries):
    """A causal language model trained by a per-example loss; what callbacks may ask it stands in `Queries`.

    Args:
        backbone: what is trained.
        optimizer: fresh in every run; AdamW without weight decay unless set.
        lr_scheduler: per optimizer step, fresh in every run; called with the optimizer and the number of steps.
    """

    # Whether a batch's losses are divided by its response tokens or by its examples.
    average: ClassVar[Literal["tokens", "examples"]] = "tokens"
    # What is done with the data, as its account is printed.
    use_of_data: ClassVar[str] = "trained on"

    def __init__(
        self,
        backbone: Backbone,
        optimizer: OptimizerCallable = PaperAdamW,
        lr_scheduler: ScheduleCallable = WarmupStableDecay,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.make_optimizer = optimizer
        self.make_scheduler = lr_scheduler
        self.net = None
        # Checkpoints hold trainable weights only.
        self.strict_loading = False
        # Of all processes, counted at every optimizer step.
        self.tokens_seen = 0
        # Of the optimizer step that is being made: this process's shares by name, real tokens, and when it began.
        self._step_values: dict[str, Tensor] = {}
        self._step_tokens = 0
        self._step_began: float | None = None
        self._step_log: dict[str, float] = {}
        self._held_out = MeanMetric()

    # --- what subclasses say -----------------------------------------------------------------------------------------------

    def build(self) -> nn.Module:
        """The net to train; called once, on the device's own process."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Tensor:
        """(B,) each example's loss: nats, summed over tokens when `average` is "tokens"."""
        raise NotImplementedError

    def passed(self, batch: Batch) -> list[Batch]:
        """What of a micro-batch a training step passes through the net: with an objective that compares, both responses."""
        return [batch]

    def sequences_per_example(self, batch_size: int) -> float:
        """How many sequences a training step passes through the net for each of its examples, on average; `batch_size` is the data's."""
        return 1.0

    @property
    def retained_data(self) -> StageData | None:
        """The data that a retain term keeps; none in fine-tuning."""
        return None

    @property
    def reads_reference(self) -> bool:
        """Whether a training step also passes its batch through the reference model."""
        return False

    # --- Lightning ---------------------------------------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Builds the net, and cuts it into shards under FSDP2; returns at once when it is there.

        Raises:
            ValueError: FSDP2 with 8-bit weights.
        """
        if self.net is not None:
            return
        if self.device_mesh is not None and self.backbone.quantization == "int8":
            raise ValueError(
                "FSDP2 cannot cut int8 weights, whose scales bitsandbytes keeps apart from them. Set backbone.quantization to nf4, or "
                "trainer.strategy to ddp."
            )
        # On the CPU, so that random weights do not depend on the device; bitsandbytes itself puts quantised ones on the process's GPU.
        # Under FSDP2 the first process alone holds the whole model; the others get their shards from it.
        waits = self.device_mesh is not None and self.backbone.quantization is None and self.global_rank > 0
        with torch.device("meta" if waits else "cpu"):
            self.net = self.build()
        if self.device_mesh is not None:
            compute = torch.bfloat16 if self.trainer.precision == "bf16-mixed" else None
            shard(self.net, self.device_mesh["data_parallel"], compute)

    def on_fit_start(self) -> None:
        """Decides how likelihoods, candidates and responses are computed with an architecture that is not among the tested ones."""
        decide_paths(self, self.trainer)

    on_validation_start = on_test_start = on_fit_start

    def configure_optimizers(self) -> Any:
        """A fresh optimizer over the trainable weights, and its schedule per step."""
        trainable = [p for p in self.parameters() if p.requires_grad]
        assert trainable, "no trainable weights"
        optimizer = self.make_optimizer(trainable)
        scheduler = self.make_scheduler(optimizer, self.trainer.datamodule.total_steps())  # type: ignore[attr-defined]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Dropout is a function of seed, epoch, micro-batch and device, so a resumed run draws what it would have drawn.

        Raises:
            RuntimeError: the data is not where the run's progress says it should be.
        """
        if (batch.epoch, batch.position) != (self.trainer.current_epoch, batch_idx):
            raise RuntimeError(
                f"Got micro-batch {batch.position} of epoch {batch.epoch} where {batch_idx} of epoch {self.trainer.current_epoch} was due. "
                "Lightning replaced the stage's sampler (set trainer.use_distributed_sampler to false), or something asked for "
                "trainer.estimated_stepping_batches before a resumed run's progress was restored."
            )
        seed = hash((self.backbone.seed or 0, batch.epoch, batch.position, self.global_rank))
        # torch.manual_seed takes a millisecond, as it keeps a stack trace for devices that are not there.
        torch.default_generator.manual_seed(seed % 2**63)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed % 2**63)
        # From the first micro-batch on, so that what was measured between two steps is no part of either.
        self._step_began = time.perf_counter() if self._step_began is None else self._step_began

    def log_step_value(self, name: str, values: Tensor, batch: Batch) -> None:
        """Logs one more number at each optimizer step: the mean over the examples of the whole batch, however it is shared out.

            def forget_loss(self, batch):
                ...
                self.log_step_value("train/gradient_weight", weights, batch)

        Called once per micro-batch with the same name on all processes, as within a loss; without gradients, as in a measurement, it does
        nothing.

        Args:
            name: of the metric, such as train/gradient_weight.
            values: (B,) one per example of the micro-batch.
            batch: the micro-batch.
        """
        if torch.is_grad_enabled():
            self._add_share(name, (values.detach() * batch.real).sum() / batch.batch_examples)

    def _add_share(self, name: str, share: Tensor) -> None:
        """Adds this micro-batch's share of a number that is a sum over the whole batch."""
        self._step_values[name] = self._step_values.get(name, 0.0) + share.detach().float()

    def share_of_loss(self, batch: Batch) -> Tensor:
        """() what this micro-batch adds to the average over the whole batch."""
        divisor = batch.batch_tokens if self.average == "tokens" else batch.batch_examples
        return (self.loss(batch) * batch.real).sum() / divisor

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """This micro-batch's share of the batch's average loss, scaled against what Lightning divides by later."""
        share = self.share_of_loss(batch)
        self._add_share("train/loss", share)
        self._step_tokens += sum(part.tokens for part in self.passed(batch))
        # DDP and FSDP2 average gradients over devices, and Lightning divides by the accumulation: undo both, the divisor has it all.
        return share * self.trainer.world_size * self.trainer.accumulate_grad_batches

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Adds up the batch's numbers over all processes, and stops before a step that is not a number can spoil the weights.

        Raises:
            FloatingPointError: loss or gradient is NaN or infinite.
        """
        gradient = squared_norm(parameter.grad for parameter in self.parameters() if parameter.grad is not None)
        # Every process has all of the gradient, or under FSDP2 its part.
        share = gradient / (1 if self.device_mesh is not None else self.trainer.world_size)
        tokens = torch.tensor(float(self._step_tokens), device=self.device)
        names = sorted(self._step_values)
        shares = torch.stack([share, tokens, *(self._step_values[name] for name in names)])
        squared, step_tokens, *sums = self.trainer.strategy.reduce(shares, reduce_op="sum").tolist()
        values = dict(zip(names, sums, strict=True))
        self.tokens_seen += round(step_tokens)
        self._step_values, self._step_tokens = {}, 0
        # float16's gradient scaler meets infinite gradients as a matter of course, and skips such steps by itself.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        loss = values["train/loss"]
        if not math.isfinite(loss) or not (scaled or math.isfinite(squared)):
            raise FloatingPointError(
                f"Step {self.trainer.global_step + 1}: the loss is {loss:g} and the squared gradient norm {squared:g}. Nothing "
                "was changed; the last checkpoint is good. Lower the learning rate, clip gradients, or look at the data of this step."
            )
        # Before clipping, which comes next.
        self._step_log = {
            **values, "train/grad_norm": math.sqrt(squared), "train/lr": optimizer.param_groups[0]["lr"],
            "train/tokens_per_second": step_tokens,
        }  # fmt: skip

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Makes the step, and logs its numbers with the speed of all devices together, data and measurements between steps left out."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        assert self._step_began is not None
        seconds, self._step_began = time.perf_counter() - self._step_began, None
        self.log_step({**self._step_log, "train/tokens_per_second": self._step_log["train/tokens_per_second"] / seconds})

    def log_step(self, values: dict[str, float]) -> None:
        """Logs the numbers of an optimizer step, by their full names, every `log_every_n_steps` steps."""
        trainer = self.trainer
        # `self.log` costs as much as two layers of a small model. Whoever monitors a metric or shows it (EarlyStopping, ModelCheckpoint,
        # progress bars) reads these dictionaries, which Lightning's own LearningRateMonitor fills in the same way.
        trainer.callback_metrics.update({name: torch.tensor(value, device=self.device) for name, value in values.items()})
        trainer.progress_bar_metrics["train/loss"] = values["train/loss"]
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.is_global_zero and every and (trainer.global_step + 1) % every == 0:
            for logger in trainer.loggers:
                logger.log_metrics({**values, "epoch": trainer.current_epoch}, step=trainer.global_step)
                logger.save()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Mean per-token log-likelihood of the stage's held-out responses (of all, where none are held out), averaged over examples."""
        value = likelihood.mean_token(self.token_log_likelihood(batch), batch.response_mask)
        self._held_out.update(value, batch.real.float())
        self.log(f"{self.trainer.datamodule.validated}/mean_token_log_lik", self._held_out, batch_size=1)  # type: ignore[attr-defined]

    test_step = validation_step

    # --- checkpoints (runs/resume.py tells the whole way) --------------------------------------------------------------------

    def trainable_names(self) -> set[str]:
        """Names of the weights that are trained, as in the state dict."""
        return {name for name, p in self.named_parameters() if p.requires_grad}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps trainable weights only: the base model is frozen and comes from the backbone."""
        names = self.trainable_names()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in names}
        checkpoint["tokens_seen"] = self.tokens_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of other weights, which non-strict loading would let pass in silence.

        Raises:
            ValueError: the checkpoint's weights are not those that this run trains.
        """
        found, expected = set(checkpoint["state_dict"]), self.trainable_names()
        if found != expected:
            raise ValueError(f"The checkpoint holds other trainable weights than this run: {sorted(found ^ expected)[:4]} ...")
        self.tokens_seen = checkpoint["tokens_seen"]
