"""One differentiable operator family, written once for every family.

A family is *closed*: every member is linear in each of its leading tensor arguments, and its derivatives are members
of the same family. Double backward, forward mode and vmap follow from three formulas per member.

The ``autograd.Function`` stands outside the dispatcher operator and is chosen at run time, because torch's own
``register_autograd`` drops forward-mode tangents, fails under ``torch.func`` and taxes every inference call.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

Statics = tuple[Any, ...]
_functorch_active = torch._C._are_functorch_transforms_active
_grad_enabled = torch.is_grad_enabled
_any_requires_grad = torch._C._any_requires_grad
_compiling = torch.compiler.is_dynamo_compiling
_FLOP_COUNTER = "torch.utils.flop_counter"
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)


def _exporting() -> bool:
    # Not ``torch.compiler.is_exporting()``: torch 2.10 folds it to True in every trace, which would lose gradients.
    return torch.compiler._is_exporting_flag


@dataclass(frozen=True, eq=False)
class Member:
    """One operator: its formulas and how many leading arguments are tensors (a trailing one may be None)."""

    name: str
    schema: str
    tensors: int
    fake: Callable[..., Tensor]
    flops: Callable[..., int] | None
    """None for what torch's counter leaves out, such as sums"""
    gradient: Callable[[Sequence[Tensor | None], Statics, Tensor, Sequence[bool]], tuple[Tensor | None, ...]]
    """(tensors, statics, upstream gradient, wanted) -> one gradient per tensor argument"""
    tangent: Callable[[Sequence[Tensor | None], Statics, Sequence[Tensor | None]], Tensor]
    """(tensors, statics, tangents) -> tangent of the result"""
    fold: Callable[[int, Sequence[int | None], Sequence[Tensor | None], Statics], tuple[Tensor, int]]
    """(batch size, batch axis per tensor, tensors, statics) -> (result, its batch axis), with one call of the op"""
    cpu: Callable[..., Tensor] | None = None
    """the kernel on host memory, where Rust does not register one itself"""
    cuda: Callable[..., Tensor] | None = None
    """the same on CUDA devices"""

    def kernels(self) -> dict[str, Callable[..., Tensor] | None]:
        """By dispatch key."""
        return {"CPU": self.cpu, "CUDA": self.cuda}


class Family:
    """Registers schemas, fakes and FLOP formulas in one namespace, and builds the routed callables."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._library = torch.library.Library(namespace, "FRAGMENT")

    def add(self, member: Member) -> Callable[..., Tensor]:
        """Define ``member`` and return its differentiable form."""
        self.define(member.name, member.schema, member.fake, member.kernels(), member.flops)
        op = getattr(getattr(torch.ops, self.namespace), member.name).default
        return _route(op, member.tensors, _lean_function(op, member), _full_function(op, member))

    def define(
        self,
        name: str,
        schema: str,
        fake: Callable[..., Any],
        kernels: Mapping[str, Callable[..., Any] | None],
        flops: Callable[..., int] | None,
    ) -> None:
        """The dispatcher operator alone, with the kernels that Rust does not register itself, by dispatch key."""
        qualified = f"{self.namespace}::{name}"
        if torch._C._dispatch_has_kernel(qualified):
            return
        self._library.define(name + schema, tags=_TAGS)
        torch.library.register_fake(qualified, fake, lib=self._library)
        for key, kernel in kernels.items():
            if kernel is not None:
                self._library.impl(name, kernel, key)
        if flops is not None:
            packet = getattr(getattr(torch.ops, self.namespace), name)
            _when_flop_counter_is_imported(
                lambda: sys.modules[_FLOP_COUNTER].register_flop_formula(packet)(flops)
            )


class _AfterImport(importlib.abc.MetaPathFinder):
    """Runs actions when torch's FLOP counter is first imported: importing it here would cost every user 0.1 s."""

    def __init__(self) -> None:
        self.actions: list[Callable[[], None]] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != _FLOP_COUNTER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                for action in self.actions:
                    action()

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_after_import = _AfterImport()


def _when_flop_counter_is_imported(action: Callable[[], None]) -> None:
    if _FLOP_COUNTER in sys.modules:
        action()
        return
    _after_import.actions.append(action)
    if _after_import not in sys.meta_path:
        sys.meta_path.insert(0, _after_import)


def _lean_function(op: Callable[..., Tensor], member: Member) -> type[torch.autograd.Function]:
    """The plain reverse-mode case; a ``setup_context`` would cost twelve microseconds more per call."""
    arity = member.tensors

    class Lean(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Tensor:
            ctx.save_for_backward(*args[:arity])
            ctx.statics = args[arity:]
            return op(*args)

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            wanted = ctx.needs_input_grad
            found = member.gradient(ctx.saved_tensors, ctx.statics, grads[0], wanted)
            return found + (None,) * (len(wanted) - arity)

    Lean.__name__ = Lean.__qualname__ = f"{member.name}_backward"
    return Lean


def _full_function(op: Callable[..., Tensor], member: Member) -> type[torch.autograd.Function]:
    """Under functorch transforms or forward-mode AD."""
    arity = member.tensors

    class Full(torch.autograd.Function):
        @staticmethod
        def forward(*args: Any) -> Tensor:
            return op(*args)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            tensors = inputs[:arity]
            ctx.save_for_backward(*tensors)
            ctx.save_for_forward(*tensors)
            ctx.statics = inputs[arity:]

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            wanted = ctx.needs_input_grad
            found = member.gradient(ctx.saved_tensors, ctx.statics, grads[0], wanted)
            return found + (None,) * (len(wanted) - arity)

        @staticmethod
        def jvp(ctx: Any, *tangents: Any) -> Any:
            return member.tangent(ctx.saved_tensors, ctx.statics, tangents[:arity])

        @staticmethod
        def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> Any:
            return member.fold(info.batch_size, in_dims[:arity], args[:arity], args[arity:])

    Full.__name__ = Full.__qualname__ = f"{member.name}_transformed"
    return Full


def _route(
    op: Any, arity: int, lean: type[torch.autograd.Function], full: type[torch.autograd.Function]
) -> Callable[..., Tensor]:
    lean_apply, full_apply = lean.apply, full.apply
    # without the test for functorch that call() makes itself
    lean_direct: Any = super(torch.autograd.Function, lean).apply  # type: ignore[misc]
    direct = op._op  # what op(...) calls, without its Python frame

    def call(*args: Any) -> Any:
        if _functorch_active() or forward_ad._current_level >= 0:
            return full_apply(*args)
        if _compiling():  # Dynamo cannot trace _any_requires_grad nor the bare _op
            needed = _grad_enabled() and any(t is not None and t.requires_grad for t in args[:arity])
            return lean_apply(*args) if needed and not _exporting() else op(*args)
        if _grad_enabled() and _any_requires_grad(*args):
            # an exported graph carries no custom Function: the bare op warns in a backward pass, where the no_grad
            # region that a Function leaves behind would lose the gradient in silence
            return op(*args) if _exporting() else lean_direct(*args)
        return direct(*args)

    return call


def autocast_args(
    device: str, activations: tuple[Tensor, ...], parameters: tuple[Tensor | None, ...]
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...]]:
    """The autocast rule of every family, per argument.

    f32 activations are cast to the autocast dtype. Parameters in f32 stay f32, because the kernels read f32 weights
    beside half activations and their gradients then arrive in f32 without a cast; half parameters follow the
    activations. f64 is left alone, as torch does.
    """
    lower = torch.get_autocast_dtype(device)
    halves = (torch.bfloat16, torch.float16)
    cast = tuple(t.to(lower) if t.dtype is torch.float32 or t.dtype in halves else t for t in activations)
    kept = tuple(p.to(lower) if p is not None and p.dtype in halves else p for p in parameters)
    return cast, kept
