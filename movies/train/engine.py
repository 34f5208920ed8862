"""Engines: one process, several that each hold everything (DDP), or several that share it (ZeRO 1, 2, 3).

The only door to accelerate and DeepSpeed. Weights are held in float32 in every engine and products run in bf16 under
autocast, so all of them compute the same and one checkpoint serves them all, on any number of processes.
"""

import atexit
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import torch
import torch.distributed as dist
from torch import Tensor, nn

from movies.errors import InputError
from movies.train.optim import AdamW

STRATEGIES = ("auto", "single", "ddp", "zero1", "zero2", "zero3")
SLOTS = ("exp_avg", "exp_avg_sq")


class Engine:
    """One process. The others change how many there are, and who holds what of the gradients, moments and weights."""

    rank, world = 0, 1
    holds_whole_weights = True  # False where every process holds a part

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @property
    def is_main(self) -> bool:
        """The process that writes files and speaks to people."""
        return self.rank == 0

    def attach(self, model: nn.Module, optimizer: AdamW, clip: float, bf16: bool = False) -> nn.Module:
        """Take over a network on `device` and its optimiser; returns what is called in the network's place.

        It is called under autocast where `bf16`.
        """
        self.model, self.optimizer, self.clip, self.bf16 = model, optimizer, clip, bf16
        self.called = self._wrapped(model)
        return self.called

    def _wrapped(self, model: nn.Module) -> nn.Module:
        return model

    @contextmanager
    def part(self, ends_step: bool) -> Iterator[None]:
        """Around forward and backward of one batch: processes exchange gradients at the end of a step only."""
        yield

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> Tensor:  # []
        """Clip, step, forget the gradients; returns their norm before. One that is not finite steps nowhere."""
        norm = nn.utils.clip_grad_norm_(
            [p for group in self.optimizer.param_groups for p in group["params"]], self.clip
        )
        if norm.isfinite():
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def sums(self, values: dict[str, float]) -> dict[str, float]:
        """Every value summed over the processes, which all must give the same names."""
        return values

    def gathered(self, items: list) -> list:
        """The items of all processes, in the order of their ranks."""
        return items

    def wait(self) -> None:
        """Go on when all processes are here."""

    def whole_model(self) -> nn.Module:
        """The network with all its weights, to be written by the main process; all processes must ask for it."""
        return self.model

    def moments(self) -> dict[str, Tensor]:
        """slot/parameter of AdamW, whole and on the CPU, for the main process; the others help, and get nothing."""
        if not self.is_main:
            return {}
        return {
            f"{slot}/{name}": value.detach().cpu().contiguous()
            for name, parameter in named(self.optimizer)
            for slot, value in self.optimizer.state[parameter].items()
        }

    def set_moments(self, moments: dict[str, Tensor]) -> None:
        """Put back what `moments` gave, here or in another engine."""
        parameters = dict(named(self.optimizer))
        for key, value in moments.items():
            slot, name = key.split("/")
            parameter = parameters[name]
            # AdamW keeps its step counts on the CPU.
            self.optimizer.state[parameter][slot] = value if slot == "step" else value.to(parameter.device)

    def close(self) -> None:
        """Let go of the network, so that the next stage can attach its own."""


class _Distributed(Engine):
    """Several processes, started by torchrun or `accelerate launch`."""

    def __init__(self, device: torch.device, strategy: str, **options) -> None:
        accelerate = _import("accelerate", strategy)
        os.environ |= {key: os.environ.get(key, value) for key, value in _lone_process().items()}
        self._marks = _marks()
        handlers = [accelerate.DistributedDataParallelKwargs(find_unused_parameters=True)]
        if device.type == "cpu":  # left to itself, accelerate starts one process alone where it finds no GPU
            handlers.append(accelerate.InitProcessGroupKwargs(backend="gloo"))
        self.accelerator = accelerate.Accelerator(mixed_precision="no", kwargs_handlers=handlers, **options)
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        super().__init__(self.accelerator.device)
        atexit.unregister(_leave)
        atexit.register(_leave)

    def sums(self, values: dict[str, float]) -> dict[str, float]:
        summed = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return dict(zip(values, summed.tolist(), strict=True))

    def gathered(self, items: list) -> list:
        parts = [None] * self.world
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def wait(self) -> None:
        dist.barrier()

    def close(self) -> None:
        """Also lets accelerate be set up anew: it keeps its state, and a mark in the environment, for a process."""
        from accelerate.state import AcceleratorState

        self.accelerator.free_memory()
        AcceleratorState._reset_state()
        for key in _marks():
            del os.environ[key]
        os.environ |= self._marks


class DataParallel(_Distributed):
    """Every process holds everything; gradients are averaged."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device, "ddp", cpu=device.type == "cpu")

    def _wrapped(self, model: nn.Module) -> nn.Module:
        return self.accelerator.prepare(model)

    @contextmanager
    def part(self, ends_step: bool) -> Iterator[None]:
        with nullcontext() if ends_step or self.world == 1 else self.called.no_sync():
            yield


class ZeRO(_Distributed):
    """DeepSpeed: processes share the moments (stage 1), the gradients too (2), the weights too (3)."""

    def __init__(self, device: torch.device, stage: int) -> None:
        if device.type == "cpu":
            os.environ |= {"DS_ACCELERATOR": "cpu", "ACCELERATE_TORCH_DEVICE": "cpu"}
        deepspeed = _import("deepspeed", f"zero{stage}")
        _import("transformers", f"zero{stage}")  # accelerate asks for its metadata
        # Its transport through shared memory wants a C++ compiler at first use; gloo wants none.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.utils.logger.setLevel("ERROR")  # its warnings are of AdamW as ours and of outputs that are no tensors
        self.stage, self.holds_whole_weights = stage, stage < 3
        self._config = {
            "train_micro_batch_size_per_gpu": 1,  # batches and their shares of a step are ours
            "gradient_accumulation_steps": 1,
            "zero_allow_untested_optimizer": True,  # AdamW that can be held
            "steps_per_print": 1 << 30,
            "zero_optimization": {"stage": stage},
        }
        from accelerate import DeepSpeedPlugin

        marks = _marks()
        for key in marks:  # what `accelerate launch` says of DeepSpeed has been read, and would contradict the config
            if key.startswith(("ACCELERATE_DEEPSPEED_", "ACCELERATE_CONFIG_DS_")):
                del os.environ[key]
        super().__init__(device, f"zero{stage}", deepspeed_plugin=DeepSpeedPlugin(hf_ds_config=self._config))
        self._marks = marks

    def _wrapped(self, model: nn.Module) -> nn.Module:
        config = self.accelerator.deepspeed_plugin.deepspeed_config
        config["gradient_clipping"] = self.clip
        # Small parameters stay whole on every process: fetching them costs more than holding them.
        config["zero_optimization"]["stage3_param_persistence_threshold"] = 10 * model.config.embed_dim
        if self.bf16:  # DeepSpeed switches off, on CUDA, the autocast that it is called under
            model.forward = torch.autocast(self.device.type, torch.bfloat16)(model.forward)
        called, _ = self.accelerator.prepare(model, self.optimizer)
        self._make_moments(called.optimizer)
        return called

    def _make_moments(self, zero) -> None:
        """Moments of zero from the start, where AdamW would make them at its first step: so they can be set."""
        flat = zero.fp32_partitioned_groups_flat if self.stage == 3 else zero.single_partition_of_fp32_groups
        for part in flat:
            self.optimizer.state[part] = {"step": torch.zeros(()), **{slot: torch.zeros_like(part) for slot in SLOTS}}
        if self.stage < 3:
            zero._lazy_init_hp_params_optimizer_state()

    @contextmanager
    def part(self, ends_step: bool) -> Iterator[None]:
        self.called.set_gradient_accumulation_boundary(ends_step)
        yield

    def backward(self, loss: Tensor) -> None:
        self.called.backward(loss)

    def step(self) -> Tensor:  # []
        self.called.step()
        return torch.as_tensor(self.called.get_global_grad_norm())

    def whole_model(self) -> nn.Module:
        if self.stage < 3:
            return self.model
        from deepspeed.runtime.zero import GatheredParameters

        state = {}
        for name, parameter in self.model.named_parameters():
            with GatheredParameters([parameter]):
                if self.is_main:
                    state[name] = parameter.detach().cpu().clone()
        return _filled(self.model, state) if self.is_main else self.model

    def moments(self) -> dict[str, Tensor]:
        from deepspeed.utils import safe_get_full_optimizer_state

        moments = {}
        for name, parameter in self._trained():
            for slot in SLOTS:
                whole = safe_get_full_optimizer_state(parameter, slot)
                if self.is_main:
                    moments[f"{slot}/{name}"] = whole.detach().cpu()
        steps = next(iter(self.optimizer.state.values()))["step"]
        return moments | {f"step/{name}": steps.clone() for name, _ in self._trained() if self.is_main}

    def set_moments(self, moments: dict[str, Tensor]) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        for name, parameter in self._trained():
            for slot in SLOTS:
                if f"{slot}/{name}" in moments:
                    safe_set_full_optimizer_state(parameter, moments[f"{slot}/{name}"].to(self.device), slot)
        steps = max((value for key, value in moments.items() if key.startswith("step/")), default=torch.zeros(()))
        for state in self.optimizer.state.values():
            state["step"].copy_(steps)

    def _trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]

    def close(self) -> None:
        self.called.destroy()
        super().close()


def named(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of an optimiser with their names."""
    for group in optimizer.param_groups:
        yield from zip(group["names"], group["params"], strict=True)


def chosen_strategy(strategy: str) -> str:
    """What "auto" means here: what the launcher says, else one process. Raises InputError for what cannot be."""
    world = num_processes()
    if strategy == "single" and world > 1:
        raise InputError(f"`engine.strategy` = 'single' uses one process, {world} were started; choose ddp or zero2")
    if strategy != "auto":
        return strategy
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        return f"zero{os.environ.get('ACCELERATE_DEEPSPEED_ZERO_STAGE', '2')}"
    return "ddp" if world > 1 else "single"


def make_engine(strategy: str, device: torch.device) -> Engine:
    """The engine of a strategy. Raises InputError where its packages are missing."""
    strategy = chosen_strategy(strategy)
    if strategy == "single":
        return Engine(device)
    return DataParallel(device) if strategy == "ddp" else ZeRO(device, int(strategy[-1]))


def num_processes() -> int:
    """How many processes the launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_rank() -> int:
    """Which of them this one is."""
    return int(os.environ.get("RANK", "0"))


def _filled(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """A network like `model` that holds these weights."""
    with torch.device("meta"):
        filled = type(model)(model.config)
    filled.load_state_dict(state, assign=True)
    if hasattr(model, "round_times"):
        filled.round_times = model.round_times
    return filled


def _marks() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key.startswith("ACCELERATE_")}


def _lone_process() -> dict[str, str]:
    """What a launcher would say of one process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def _import(package: str, strategy: str):
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"`engine.strategy` {strategy!r} needs {package}: run `pip install movies[train]`, or choose 'single'"
        ) from error


def _leave() -> None:
    with suppress(RuntimeError):
        if dist.is_initialized():
            dist.destroy_process_group()
