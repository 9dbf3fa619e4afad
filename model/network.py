"""A-QCF-Net: two encoder streams, fusion at four scales, a shared bottleneck, two decoders
(section 3.2.3), and the graph that remains when one stream is absent.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from .fusion import FusionBlock
from .layers import ConvBlock, conv, conv_block
from .precision import trusted
from .spec import NetworkConfig
from .types import MODALITIES, Modality


class AttentionGate(nn.Module):
    """Re-weight a skip map by the deeper map (Oktay et al. 2018)."""

    def __init__(self, config: NetworkConfig, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.skip = conv(config, channels, inner, 1)
        self.signal = conv(config, channels, inner, 1)
        self.score = nn.Conv3d(4 * inner, 1, 1, bias=False)

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        evidence = F.relu(self.skip(skip) + self.signal(signal))
        return skip * torch.sigmoid(self.score(evidence))


class DecoderLevel(nn.Module):
    """Reduce, up-sample, gate the skip, concatenate, two conv blocks."""

    def __init__(self, config: NetworkConfig, deep: int, channels: int) -> None:
        super().__init__()
        self.reduce = conv(config, deep, channels, 1)
        self.gate = AttentionGate(config, channels) if config.attention_gates else None
        self.first = conv_block(config, 2 * channels, channels)
        self.second = conv_block(config, channels, channels)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        signal = F.interpolate(self.reduce(deep), scale_factor=2.0, mode="trilinear")
        gated = skip if self.gate is None else self.gate(skip, signal)
        merged: Tensor = self.second(self.first(signal, gated))
        return merged


class Decoder(nn.Module):
    """Four levels up to full resolution and a real 1x1x1 head with a bias, the only one."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        deep = (config.bottleneck, *config.widths[:0:-1][1:])
        skips = config.widths[-2::-1]
        self.levels = nn.ModuleList(
            DecoderLevel(config, below, width) for below, width in zip(deep, skips, strict=True)
        )
        self.head = nn.Conv3d(4 * config.widths[0], config.classes, 1)

    def forward(self, deep: Tensor, skips: list[Tensor], recompute: bool = False) -> Tensor:
        """``skips``: stem and fused maps of stages 1-3, from shallow to deep."""
        x = deep
        for level, skip in zip(self.levels, reversed(skips), strict=True):
            x = run_block(level, x, skip, recompute=recompute)
        logits: Tensor = self.head(x)
        return logits


class Encoder(nn.Module):
    """The unfused parts of one stream: stem and four strided blocks."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        stem = nn.Conv3d(1, 4 * config.widths[0], 3, padding=1, bias=False)
        self.stem = ConvBlock(stem, 4 * config.widths[0], config.norm_eps)
        pairs = zip(config.widths[:-1], config.widths[1:], strict=True)
        self.down = nn.ModuleList(conv_block(config, a, b, stride=2) for a, b in pairs)


class AQCFNet(nn.Module):
    """The dual-stream network. Every stream layer is bias-free: zeros in, zeros out.

    ``recompute``: the backward pass computes each block's activations again, so that only the maps
    between blocks are kept. Less memory, a third more work, the same gradients.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        self.encoders = nn.ModuleDict({m: Encoder(config) for m in MODALITIES})
        self.fusion = nn.ModuleList(FusionBlock(config, width) for width in config.widths[1:])
        shared = ["both"] if config.shared_bottleneck else list(MODALITIES)
        self.bottlenecks = nn.ModuleDict(
            {name: conv_block(config, config.widths[-1], config.bottleneck) for name in shared}
        )
        self.decoders = nn.ModuleDict({m: Decoder(config) for m in MODALITIES})

    def forward(self, ct: Tensor, mr: Tensor, exchange: bool = True) -> tuple[Tensor, Tensor]:
        """``ct``, ``mr``: ``(n, 1, z, y, x)`` in [0, 1], sides multiples of 16; an absent stream
        is all zeros (eq. 17). Returns logits ``(n, classes, z, y, x)`` of both.

        ``exchange=False`` runs both streams as if the other were absent (exchange dropout).
        """
        if not exchange:
            return self.alone("ct", ct), self.alone("mr", mr)
        ct_logits, mr_logits, _ = self._exchange(ct, mr)
        return ct_logits, mr_logits

    def gates(self, ct: Tensor, mr: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Per stage the gates ``(n, 1)`` MR->CT and CT->MR (table 6)."""
        return self._exchange(ct, mr)[2]

    def alone(self, modality: Modality, x: Tensor) -> Tensor:
        """One stream with the other absent, without computing the other (eq. 10); with it, where
        the configuration is the literal one and eq. 10 does not hold."""
        if self.config.literal_absent:
            absent = torch.zeros_like(x)
            if modality == "ct":
                return self._exchange(x, absent)[0]
            return self._exchange(absent, x)[1]
        fuse = [block.alone for block in self._blocks()]
        return run_stream(
            self._encoder(modality), fuse, self._bottleneck(modality), self.decoders[modality], x,
            self.recompute,
        )  # fmt: skip

    def one_stream(self, modality: Modality) -> nn.Module:
        """A pruned copy that holds only what ``modality`` needs when the other is absent; a whole
        one of the literal variant, which needs both streams."""
        if self.config.literal_absent:
            return ZeroFilledNet(self, modality)
        return OneStreamNet(self, modality)

    def _exchange(
        self, ct: Tensor, mr: Tensor
    ) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        ct_present, mr_present = presence(ct), presence(mr)
        run = partial(run_block, recompute=self.recompute)
        ct, mr = run(self._encoder("ct").stem, ct), run(self._encoder("mr").stem, mr)
        ct_maps, mr_maps, gates = [ct], [mr], []
        for stage, block in enumerate(self._blocks()):
            ct = run(self._encoder("ct").down[stage], ct_maps[-1])
            mr = run(self._encoder("mr").down[stage], mr_maps[-1])
            fused = run(block, ct, mr, ct_present, mr_present)
            ct_maps.append(fused.ct)
            mr_maps.append(fused.mr)
            gates.append((fused.gate_mr_to_ct, fused.gate_ct_to_mr))
        return self._decode("ct", ct_maps), self._decode("mr", mr_maps), gates

    def _decode(self, modality: Modality, maps: list[Tensor]) -> Tensor:
        deep = run_block(self._bottleneck(modality), maps[-1], recompute=self.recompute)
        logits: Tensor = self.decoders[modality](deep, maps[:-1], self.recompute)
        return logits

    def _encoder(self, modality: Modality) -> Encoder:
        encoder = self.encoders[modality]
        if not isinstance(encoder, Encoder):
            raise TypeError(type(encoder).__name__)
        return encoder

    def _bottleneck(self, modality: Modality) -> nn.Module:
        return self.bottlenecks["both" if self.config.shared_bottleneck else modality]

    def _blocks(self) -> list[FusionBlock]:
        return [block for block in self.fusion if isinstance(block, FusionBlock)]


class OneStreamNet(nn.Module):
    """What is left of ``AQCFNet`` for one modality: its encoder, half of each output kernel of the
    fusion blocks, the bottleneck and its decoder. ``(n, 1, z, y, x)`` to logits."""

    def __init__(self, net: AQCFNet, modality: Modality) -> None:
        super().__init__()
        self.encoder = deepcopy(net._encoder(modality))
        self.fuse = nn.ModuleList(block.pruned(net.config) for block in net._blocks())
        self.bottleneck = deepcopy(net._bottleneck(modality))
        self.decoder = deepcopy(net.decoders[modality])

    def forward(self, image: Tensor) -> Tensor:
        return run_stream(self.encoder, list(self.fuse), self.bottleneck, self.decoder, image)


class ZeroFilledNet(nn.Module):
    """Both streams, the absent one all zeros (eq. 17). ``(n, 1, z, y, x)`` to logits."""

    def __init__(self, net: AQCFNet, modality: Modality) -> None:
        super().__init__()
        self.net, self.modality = deepcopy(net), modality

    def forward(self, image: Tensor) -> Tensor:
        return self.net.alone(self.modality, image)


def run_stream(
    encoder: Encoder,
    fuse: Sequence[Callable[[Tensor], Tensor]],
    bottleneck: nn.Module,
    decoder: nn.Module,
    x: Tensor,
    recompute: bool = False,
) -> Tensor:
    """The way of one stream by itself."""
    run = partial(run_block, recompute=recompute)
    maps: list[Tensor] = [run(encoder.stem, x)]
    for down, block in zip(encoder.down, fuse, strict=True):
        maps.append(run(block, run(down, maps[-1])))
    deep = run(bottleneck, maps[-1])
    logits: Tensor = decoder(deep, maps[:-1], recompute)
    return logits


def presence(x: Tensor) -> Tensor:
    """1 where a sample's input is not all zeros, else 0: ``(n, 1, 1, 1, 1)``."""
    return (x != 0).flatten(1).any(1).to(x.dtype)[:, None, None, None, None]


def run_block(block: Callable[..., Any], *maps: Tensor, recompute: bool = False) -> Any:
    """A block on its maps, in a precision that can be trusted."""
    if recompute and torch.is_grad_enabled():
        # No block draws random numbers, so their state need not be put back.
        return checkpoint(trusted, block, *maps, use_reentrant=False, preserve_rng_state=False)
    return trusted(block, *maps)
