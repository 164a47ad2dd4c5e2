"""Forward hooks for as long as a block runs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def forward_hooks(hooks: Iterable[tuple[nn.Module, Callable]], with_kwargs: bool = False) -> Iterator[None]:
    """Within the block, each layer calls its hook after its `forward`, as `nn.Module.register_forward_hook` says."""
    handles = [layer.register_forward_hook(hook, with_kwargs=with_kwargs) for layer, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
