"""A rollout as a moving picture: truth, prediction and error side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from scigpt.evaluate.drawing import bracket, elapsed_time, label, new_figure, shown_variables, titled
from scigpt.evaluate.pictures import anomaly, colour_scale, colourbar, planes, symmetric
from scigpt.evaluate.study import Example

MILLISECONDS = 200
LARGEST = 1_000_000
"""Bytes of a file; a larger one is made again with fewer pixels."""
RESOLUTIONS = (80, 60, 45, 30)
SHADES = 112
"""Of each of the two colour maps; the rest of the 256 colours of a GIF are greys. One palette for all frames, or colours would flicker."""


def animate(example: Example, file: Path) -> str:
    """Write the first predicted variable of a rollout as a GIF and return its caption; volumes are shown in their first cut."""
    for resolution in RESOLUTIONS:
        images, caption = _frames(example, resolution)
        images[0].save(file, save_all=True, append_images=images[1:], duration=MILLISECONDS, loop=0, optimize=True)
        if file.stat().st_size < LARGEST:
            break
    return caption


def _frames(example: Example, resolution: int) -> tuple[list[Image.Image], str]:
    sample, steps = example.sample, len(example.prediction)
    (c, variable), context = shown_variables(sample)[0], len(sample.time) - len(example.prediction)
    truth, valid, forecast = sample.values[context:, c], sample.valid[context:, c], example.prediction[:, c]
    plane = planes(sample)[0]
    leads, unit = elapsed_time(sample.time.seconds[context:] - sample.time.seconds[context - 1], sample.time.calendar == "none")
    width = 3.0
    figure = new_figure(3 * width + 1.6, width * plane.aspect() + 0.9, " ")
    figure.set_dpi(resolution)
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3)
    (palette, norm), limits = colour_scale(truth[valid]), symmetric(anomaly(truth[valid]))
    shades = _palette(palette, "PuOr_r")
    images: list[Image.Image] = []
    for step in range(steps):
        fields = (truth[step], forecast[step], forecast[step] - truth[step])
        shown = []
        for axes, field, name in zip(panels, fields, ("truth", "prediction", "error"), strict=True):
            axes.clear()
            scale = ("PuOr_r", limits) if name == "error" else (palette, norm)
            shown.append(plane.show(axes, field, valid[step], *scale))
            titled(axes, name)
            axes.set_xticks([])
            axes.set_yticks([])
        figure.suptitle(f"{label(variable)}{plane.suffix}, lead {step + 1}: {leads[step]:.4g} {unit}", fontsize=10, x=0.01, ha="left")
        if step == 0:
            colourbar(figure, shown[1], list(panels[:2]), label(variable, unit=True), [truth[valid], forecast[valid]])
            colourbar(figure, shown[2], [panels[2]], f"error {bracket(variable)}", [(forecast - truth)[valid]])
        canvas.draw()
        if step == 0:
            figure.set_layout_engine("none")  # the places of the first frame are those of all
        picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
        images.append(picture.quantize(palette=shades, dither=Image.Dither.NONE))
    return images, f"{label(variable)}: rollout of {steps} steps{plane.suffix}"


def _palette(*maps: str) -> Image.Image:
    scales = [colormaps[name](np.linspace(0, 1, SHADES))[:, :3] for name in maps]
    greys = np.repeat(np.linspace(0, 1, 256 - SHADES * len(maps))[:, None], 3, axis=1)
    image = Image.new("P", (1, 1))
    image.putpalette((np.concatenate([*scales, greys]) * 255).round().astype(np.uint8).tobytes())
    return image
