"""Speech: log-mel frames of sentences that Debian's espeak-ng says, ``python -m studies.evidence.speech``.

The reports of the inflated loss came from text-to-speech. The frames of this file are what such a model is fed: bands
in decibels over a floor, scaled to 0 … 1, so that digital silence is exactly 0, and a batch that is padded with zeros
has the same value where no sound is as where no sentence is.
"""

from __future__ import annotations

import io
import json
import math
import re
import subprocess
import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = Path(__file__).with_name("speech.npz")
VOICES = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-rp")
#: Words a minute and pitch (0 to 99), in turns, so that no two sentences are said alike.
SPEEDS, PITCHES = (150, 170, 190), (35, 50, 65, 80, 95)
HOP, WINDOW, BANDS, LOWEST, HIGHEST = 0.020, 0.046, 40, 50.0, 8000.0  # s, s, –, Hz, Hz
RANGE = 80.0  # dB that are kept below full scale
SILENCE = 0.25  # s before and after each sentence, as recordings have it
LEVELS = 255  # one byte a value: steps of 0.3 dB

SENTENCES = (
    "The kettle boiled over, and nobody heard it.",
    "Seven grey geese walked across the frozen pond.",
    "Please leave your shoes by the door; the floor is wet.",
    "He counted the coins twice, then once more.",
    "A loss that grows is not always a model that gets worse.",
    "Turn left after the bakery, and left again at the mill.",
    "The train to the coast leaves at twenty past nine.",
    "Who painted the fence blue?",
    "Rain fell all night on the tin roof of the shed.",
    "She sharpened the pencil, broke it, and laughed.",
    "My neighbour keeps bees, two goats, and a very old horse.",
    "No code is nearer than the nearest one.",
    "They sailed at dawn with a light wind from the south.",
    "The library closes early on Thursdays, I believe.",
    "Bring bread, salt, and something to drink.",
    "Every clock in the house showed a different hour.",
    "It was only a small step, but it was in the wrong direction.",
    "The orchestra tuned, the lights went down, and then: nothing.",
    "Can you hear the river from here?",
    "Fresh snow hid the path to the quarry.",
    "We planted onions where the roses used to be.",
    "The answer, he said slowly, depends on the question.",
    "Twelve chairs stood around a table for six.",
    "Measure first; explain afterwards.",
)


def main() -> None:
    """Synthesise, analyse and write `FILE`."""
    sentences = [_levels(_say(number, text)) for number, text in enumerate(SENTENCES)]
    version = re.findall(
        r"\d+\.\d+\S*", subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True).stdout
    )
    settings = {"espeak-ng": version[0], "hop, s": HOP, "window, s": WINDOW, "range, dB": RANGE, "sentences": SENTENCES}
    np.savez_compressed(
        FILE,
        levels=np.concatenate(sentences),
        lengths=np.array([len(frames) for frames in sentences], dtype=np.int64),
        settings=json.dumps(settings),
    )
    print(f"{FILE.name}: {sum(map(len, sentences))} frames, {FILE.stat().st_size} bytes")


def _say(number: int, text: str) -> tuple[NDArray[np.float64], int]:
    """Return samples in −1 … 1, silence around them, and how many there are in a second."""
    voice, speed, pitch = (str(options[number % len(options)]) for options in (VOICES, SPEEDS, PITCHES))
    command = ["espeak-ng", "--stdout", "-v", voice, "-s", speed, "-p", pitch, text]
    said = subprocess.run(command, capture_output=True, check=True).stdout
    with wave.open(io.BytesIO(said)) as recording:
        rate = recording.getframerate()
        # espeak-ng writes to a pipe, and so cannot say how long it is: take what is there
        samples = np.frombuffer(said[44:], dtype="<i2") / 2.0**15
    quiet = np.zeros(round(SILENCE * rate))
    return np.concatenate([quiet, samples, quiet]), rate


def _levels(sound: tuple[NDArray[np.float64], int]) -> NDArray[np.uint8]:
    """Return (frames, BANDS): 0 is RANGE dB below full scale or less, LEVELS is full scale."""
    samples, rate = sound
    hop, width = round(HOP * rate), round(WINDOW * rate)
    starts = range(0, len(samples) - width, hop)
    frames = np.stack([samples[start : start + width] for start in starts]) * np.hanning(width)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2 / (np.hanning(width).sum() / 2) ** 2
    with np.errstate(divide="ignore"):
        decibels = 10 * np.log10(power @ _bands(width, rate).T)
    return np.asarray(np.round(LEVELS * np.clip(1 + decibels / RANGE, 0, 1)), dtype=np.uint8)


def _bands(width: int, rate: int) -> NDArray[np.float64]:
    """Return (BANDS, width // 2 + 1): triangles, equally wide on the mel scale 2595·log10(1 + f/700)."""
    lowest, highest = (2595 * math.log10(1 + f / 700) for f in (LOWEST, HIGHEST))
    corners = 700 * (10 ** (np.linspace(lowest, highest, BANDS + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(width, 1 / rate)
    rising = (frequencies - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - frequencies) / (corners[2:] - corners[1:-1])[:, None]
    return np.asarray(np.clip(np.minimum(rising, falling), 0, None))


if __name__ == "__main__":
    main()
