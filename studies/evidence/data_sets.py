"""The two data sets, each with the autoencoder that is trained on it: images of digits, and frames of speech."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from studies.evidence import speech

#: Width of a token, and number of codes, on both.
DIM, CODES = 32, 256


@dataclass(frozen=True)
class DataSet:
    """Training data and held-out data of one kind.

    batch: draws a batch from a generator. held_out: what no batch holds. autoencoder: makes encoder and decoder, with
    (B, N, DIM) between them.
    """

    name: str
    batch: Callable[[torch.Generator], Tensor]
    held_out: Tensor
    autoencoder: Callable[[], tuple[nn.Module, nn.Module]]


class SwapLastAxes(nn.Module):
    """Channels first to tokens, and back: (B, M, N) to (B, N, M)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x with its last two axes swapped, laid out anew: sums over it are then in one order for everybody."""
        return x.transpose(1, 2).contiguous()


def digits(batch: int = 64, held_out: int = 297) -> DataSet:
    """Return scikit-learn's digits: 1797 images of 8 × 8 in 0 … 1, the last `held_out` kept back; 4 tokens an image."""
    from sklearn.datasets import load_digits  # type: ignore[import-not-found, import-untyped, unused-ignore]

    images = torch.tensor(load_digits().images / 16, dtype=torch.float32)[:, None]
    training = images[:-held_out]

    def draw(generator: torch.Generator) -> Tensor:
        return training[torch.randint(len(training), (batch,), generator=generator)]

    def autoencoder() -> tuple[nn.Module, nn.Module]:
        width, side = 16, 2
        encoder = nn.Sequential(
            *(nn.Conv2d(1, width, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(width, DIM, 4, stride=2, padding=1), nn.Flatten(2), SwapLastAxes()),
        )
        decoder = nn.Sequential(
            *(SwapLastAxes(), nn.Unflatten(2, (side, side))),
            *(nn.ConvTranspose2d(DIM, width, 4, stride=2, padding=1), nn.ReLU()),
            nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1),
        )
        return encoder, decoder

    return DataSet("digits", draw, images[-held_out:], autoencoder)


def spoken(batch: int = 4, held_out: int = 4) -> DataSet:
    """Return the sentences of `speech`, padded with zeros; a token a frame, the last sentences kept back."""
    frames, lengths = sentences()
    training, known = frames[:-held_out], lengths[:-held_out]

    def draw(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(training), (batch,), generator=generator)
        return training[chosen, : int(known[chosen].max())]

    return DataSet("speech", draw, frames[-held_out:], perceptron)


def sentences() -> tuple[Tensor, Tensor]:
    """Return all frames (sentences, longest, BANDS) in 0 … 1, zero behind each sentence's end, and their lengths."""
    with np.load(speech.FILE) as file:
        levels, lengths = file["levels"], torch.tensor(file["lengths"])
    pieces = torch.split_with_sizes(torch.tensor(levels, dtype=torch.float32) / speech.LEVELS, lengths.tolist())
    return nn.utils.rnn.pad_sequence(list(pieces), batch_first=True), lengths


def perceptron(bias: bool = True) -> tuple[nn.Module, nn.Module]:
    """Return encoder and decoder of single frames, (…, BANDS) to (…, DIM) and back."""

    def layers(width_in: int, width_out: int) -> nn.Module:
        hidden = 64
        return nn.Sequential(nn.Linear(width_in, hidden, bias=bias), nn.ReLU(), nn.Linear(hidden, width_out, bias=bias))

    return layers(speech.BANDS, DIM), layers(DIM, speech.BANDS)


def variance(data: DataSet) -> float:
    """Return the mean square of the held-out data about the mean image or frame: what a constant reaches."""
    samples = data.held_out.reshape(-1, speech.BANDS) if data.name == "speech" else data.held_out
    return float((samples - samples.mean(dim=0)).square().mean())


DATA_SETS = {"digits": digits, "speech": spoken}
