"""timm's networks as backbones: `timm/ARCHITECTURE` or `timm/ARCHITECTURE.TAG`."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from transfer_learning.models.backbones import Backbone, InputSpec, no_such_network
from transfer_learning.models.chain import Part, chain
from transfer_learning.models.weights import WeightsSource, read_state_dict
from transfer_learning.utilities.errors import ArgumentError, UserError, first_line, needs

try:
    import timm
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import EntryNotFoundError, LocalEntryNotFoundError
    from timm.models._hub import download_cached_file
except ModuleNotFoundError:
    needs("timm", "timm")
    raise

FILES = ("model.safetensors", "pytorch_model.bin")  # in a repository on the Hugging Face hub: the first, else the other


def input_spec(name: str, weights: str | None) -> InputSpec:
    """See `backbones.input_spec`. Everything is as timm's `pretrained_cfg` says.

    The image size is `input_size`, that of the training, and not `test_input_size`.
    """
    cfg = pretrained_cfg(name, weights)
    size, crop = cfg.input_size[-1], min(cfg.crop_pct, 1.0)
    return InputSpec(_full_name(cfg), size, cfg.interpolation, tuple(cfg.mean), tuple(cfg.std), crop)


def create(name: str, weights: str | None, image_size: int, sha256: str | None = None) -> Backbone:
    """See `backbones.create`.

    The features are `forward_head(forward_features(images), pre_logits=True)`. There is a block for each level of
    `feature_info`, with the stem in the first one and the last convolution or norm in the last one. In networks of one
    resolution, such as vision transformers, the embedding of patches and positions is a block of its own.
    """
    if torch.empty(0).is_meta:
        raise UserError("timm's networks are cut into blocks by their values, which the meta device does not have.")
    cfg = pretrained_cfg(name, weights)
    source, state = _read(cfg, weights, sha256) if weights is not None else (None, None)
    network = _network(cfg, image_size, state, weights)
    levels = getattr(network, "feature_info", [])
    has_one_resolution = len({level["reduction"] for level in levels}) == 1
    images = torch.rand(3, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    try:
        cut = chain(network, [level["module"] for level in levels], images, stem_apart=has_one_resolution)
    except Exception as error:  # of many kinds
        reason = f"{cfg.architecture} does not support it ({first_line(error)})."
        raise ArgumentError("image_size", image_size, reason) from error
    spec = input_spec(name, weights)
    if cut is None:
        return Backbone({"body": Part(network)}, spec, source=source)
    return Backbone({f"block{n}": block for n, block in enumerate(cut[0], 1)}, spec, source=source, pool=cut[1])


def pretrained_cfg(name: str, weights: str | None) -> Any:
    """timm's entry for the weights; that of `name` for DEFAULT, for files and for random weights (None).

    Raises:
        ArgumentError: no such network, or no such tag of it.
    """
    architecture, tag = timm.models.split_model_name_tag(name)
    networks = timm.list_models()
    if architecture not in networks:
        raise ArgumentError("backbone", f"timm/{name}", no_such_network("timm", architecture, networks))
    known = timm.models.get_arch_pretrained_cfgs(architecture)
    if tag and name not in known:
        raise ArgumentError("backbone", f"timm/{name}", f"no such weights; expected one of {', '.join(known)}.")
    chosen = next((full for full in known if weights in (full, full.partition(".")[2])), name)
    return timm.models.get_pretrained_cfg(chosen, allow_unregistered=False)


def _read(cfg: Any, weights: str, sha256: str | None) -> tuple[WeightsSource, dict[str, torch.Tensor]]:
    published = weights in ("DEFAULT", cfg.tag, _full_name(cfg))
    path = _downloaded(cfg, weights) if published else Path(weights).expanduser().absolute()
    if not path.is_file():
        known = timm.models.get_arch_pretrained_cfgs(cfg.architecture).values()
        names = ", ".join(["DEFAULT", *(each.tag for each in known if each.tag and each.has_weights)])
        expected = f"expected a file, one of {names}, or null for random weights."
        raise ArgumentError("weights", weights, f"no such file; {expected}")
    state, found = read_state_dict(path, weights, sha256)
    return WeightsSource(_full_name(cfg) if published else str(path), found), state


def _full_name(cfg: Any) -> str:
    return f"{cfg.architecture}.{cfg.tag}" if cfg.tag else cfg.architecture


def _downloaded(cfg: Any, weights: str) -> Path:
    """The file in the cache that timm uses, which is downloaded if it is missing."""
    place = f"https://huggingface.co/{cfg.hf_hub_id}" if cfg.hf_hub_id else cfg.url
    if not place:
        raise ArgumentError("weights", weights, f"timm has none of {cfg.architecture}; expected a file or null.")
    try:
        if not cfg.hf_hub_id:
            return Path(download_cached_file(cfg.url))
        try:
            return Path(hf_hub_download(cfg.hf_hub_id, FILES[0]))
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):  # no connection
                raise
            return Path(hf_hub_download(cfg.hf_hub_id, FILES[1]))
    except Exception as error:  # of many kinds: no connection, no such file, a full disk
        ways = "Name a file as `weights`, or take random weights (null)."
        reason = f"{place} cannot be downloaded ({first_line(error)})"
        raise ArgumentError("weights", weights, f"{reason}. {ways}") from error


def _network(cfg: Any, image_size: int, state: dict | None, weights: str | None) -> Any:
    """The network with the given or random weights, in evaluation mode, without its last layer."""
    last = [cfg.classifier] if isinstance(cfg.classifier, str) else cfg.classifier or []
    overlay: dict[str, Any] = {}  # of `cfg`
    settings: dict[str, Any] = {"img_size": image_size} if cfg.fixed_input_size else {}  # positions are resampled
    if state is not None:
        overlay = {"state_dict": state}
        for layer in last:  # as many classes as the file has, so that all weights must match; 0: no last layer
            overlay["num_classes"] = settings["num_classes"] = len(state.get(f"{layer}.weight", ()))
    try:
        network: Any = timm.create_model(_full_name(cfg), bool(overlay), pretrained_cfg_overlay=overlay, **settings)
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split())[:200]
        is_other_network = "Missing key" in reason or "Unexpected key" in reason
        if state is None or (cfg.fixed_input_size and image_size != cfg.input_size[-1] and not is_other_network):
            with_these = "" if state is None else " with these weights"
            what = f"{cfg.architecture} does not support it{with_these} ({reason})."
            raise ArgumentError("image_size", image_size, what) from error
        raise ArgumentError("weights", weights, f"not {cfg.architecture} in timm's layout ({reason}).") from error
    network.pretrained_cfg.pop("state_dict", None)
    for layer in last:
        network.set_submodule(layer, nn.Identity())
    return network.eval()
