"""The model card of an export: README.md, with the front matter that the Hugging Face hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from scigpt.data.domain import Domain
from scigpt.evaluate.card import conclusion, figure, interval
from scigpt.export.matching import inputs
from scigpt.model.backbone import ModelConfig

LICENCES = {
    "cc0-1.0": {"CC0-1.0"},
    "cc-by-4.0": {"CC0-1.0", "CC-BY-4.0"},
    "cc-by-sa-4.0": {"CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0"},
    "cc-by-nc-4.0": {"CC0-1.0", "CC-BY-4.0", "CC-BY-NC-4.0"},
    "cc-by-nc-sa-4.0": {"CC0-1.0", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"},
}
"""Names of the hub, from the freest on, and the licences of data whose conditions each of them covers."""
TERMS = {
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "OGL-UK-3.0": "https://www.nationalarchives.gov.uk/doc/open-government-licence/version/3/",
} | {
    f"CC-{kind}-4.0": f"https://creativecommons.org/licenses/{kind.lower()}/4.0/" for kind in ("BY", "BY-SA", "BY-NC", "BY-NC-SA", "BY-ND")
}
HEADS = {
    "point": "Its head predicts one value and says nothing of its uncertainty.",
    "gaussian": "Its head predicts a normal distribution at each point; how good that is stands in the evaluation's own card, if anywhere.",
    "quantile": "Its head predicts quantiles at each point; how good they are stands in the evaluation's own card, if anywhere.",
    "ensemble": "Its head predicts an ensemble of fields; how good it is stands in the evaluation's own card, if anywhere.",
}
TRAINING = {
    "seed": "seed",
    "precision": "precision",
    "processes": "processes",
    "samples": "windows seen",
    "tokens": "tokens seen",
    "epochs": "epochs",
    "flops": "FLOPs",
    "seconds": "seconds",
    "skipped_steps": "skipped steps",
    "loss": "training loss at the end",
    "score": "validation loss at the end",
}


def model_card(facts: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> str:
    """README.md.

    Args:
        facts: content of `config.json`, see `scigpt.export.folder`.
        evaluation: content of `results.json` of the very checkpoint, see `scigpt.evaluate.evaluate`.
    """
    domains = [Domain.from_json(d) for d in facts["domains"]]
    sections = [
        [f"# {_plain(facts['run'])}", "", *_about(facts)],
        ["## Domains", "", *(line for d in domains for line in _domain(d))],
        ["## Use", "", *_use(facts, domains)],
        ["## Training", "", *_training(facts)],
        ["## Evaluation", "", *_evaluation(evaluation)],
        ["## Licences and attributions of the data", "", *_licences(facts)],
        ["## Limits", "", *_limits(facts, domains)],
        ["## Files", "", *_files(facts)],
    ]
    front = yaml.safe_dump(_front(facts), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{front}---\n\n" + "\n\n".join("\n".join(lines).strip() for lines in sections) + "\n"


def hub_licence(licences: Iterable[str]) -> str:
    """The hub's name for the freest licence that covers the conditions of all, `other` where there is none."""
    found = set(licences)
    return next((name for name, covered in LICENCES.items() if found and found <= covered), "other")


def _front(facts: Mapping[str, Any]) -> dict[str, Any]:
    name = "other" if facts["unknown"] else hub_licence(facts["licences"])
    front: dict[str, Any] = {"license": name}
    if name == "other":
        front |= {"license_name": "licences-of-the-data", "license_link": "README.md"}
    return front | {"library_name": "scigpt", "tags": ["scigpt", "physics", facts["task"]["name"]]}


def _about(facts: Mapping[str, Any]) -> list[str]:
    told, (depth, width, _) = facts["training"], ModelConfig(**facts["model"]).resolved()
    size = f"{_count(_total(told['parameters']))} parameters, " if "parameters" in told else ""
    step = f"step {facts['step']}" + (f" of {told['steps']}" if "steps" in told else "")
    adapted = f", adapted from a pretrained model ({_plain(told['adapted'])})" if told.get("adapted") else ""
    return [
        f"A SciGPT model of the physical sciences ({size}depth {depth}, width {width}, head {facts['model']['head']}) for the task "
        f"{facts['task']['name']}: checkpoint {_plain(facts['checkpoint'])} ({step}) of the run {_plain(facts['run'])}{adapted}.",
        "This card is generated from what the run recorded.",
    ]


def _domain(domain: Domain) -> list[str]:
    layout, steps = domain.layout, domain.scales
    grid = " x ".join(str(n) for n in layout.grid)
    boundary = "; ".join(f"{axis}: {' / '.join(sides)}" for axis in "zyx" for sides in [getattr(layout.boundary, axis)])
    rows = [
        (
            v.name,
            v.unit,
            v.role,
            "" if v.level is None else f"{v.level.kind} {v.level}",
            transform if transform == "identity" else f"{transform} of value / {size:g}",
            f"{mean:.5g}",
            f"{deviation:.5g}",
            f"{increment * deviation:.5g}",
        )
        for v, (transform, size), mean, deviation, increment in zip(
            layout.variables, steps.transform, steps.center, steps.scale, steps.increment, strict=True
        )
    ]
    lines = [
        f"### {_plain(domain.name)}",
        "",
        f"- grid (Z, Y, X): {grid}, geometry {layout.geometry}"
        + (f"; the model saw {domain.crop[0]} x {domain.crop[1]} points of it at once" if domain.crop else ""),
        f"- boundary: {boundary}",
        f"- time: {_time(domain)}",
        f"- window: {domain.frames} frames, the predicted one included; patch {domain.patch}",
        *(
            f"- {_plain(name)}: {' x '.join(c['axes'])}, {_plain(c['unit'])}"
            + ("" if c["spacing"] is None else f", every {c['spacing']:.5g}")
            for name, c in domain.coordinates.items()
        ),
        *(f"- coefficient {_plain(name)}: {low:.5g} to {high:.5g}" for name, (low, high) in domain.coefficients.items()),
        "",
    ]
    header = ("variable", "unit", "role", "level", "transform", "mean", "deviation", "increment RMS")
    return [*lines, *_table(header, rows), "", "Normalised with these means and deviations, which are of transformed values.", ""]


def _time(domain: Domain) -> str:
    if domain.layout.steady:
        return "steady problems, each with one solution"
    unit = "" if domain.calendar == "none" else " s"
    step = "unknown" if domain.step is None else f"{'about ' if domain.varying else ''}{domain.step:.6g}{unit}"
    return f"step {step}, " + ("simulated" if domain.calendar == "none" else f"calendar {domain.calendar}")


def _use(facts: Mapping[str, Any], domains: Sequence[Domain]) -> list[str]:
    install = "Needs scigpt, or its wheel alone (`pip install --no-deps`) beside torch, safetensors, numpy and xarray."
    if facts["task"]["name"] != "forecast" or not domains:
        return [
            install,
            "",
            "```python",
            "from pathlib import Path",
            "",
            "from scigpt.export.folder import Exported",
            "",
            'model = Exported.open(Path("path/of/this/folder")).model()  # a torch module',
            "```",
        ]
    domain = domains[0]
    given = [f"{v.key} [{v.unit}]" for _, v in inputs(domain)]
    frames = "" if domain.layout.steady else f"; {domain.frames - 1} frames or more"
    steps = 1 if domain.layout.steady else 4
    return [
        install,
        "",
        "```python",
        "import scigpt",
        "import xarray as xr",
        "",
        'model = scigpt.load("path/of/this/folder")',
        f'dataset = xr.open_dataset("states.nc")  # {" ".join(", ".join(given).split())}{frames}',
        f"forecast = model.forecast(dataset, steps={steps})  # an xarray.Dataset",
        "```",
        "",
        "From the Hugging Face hub, with `pip install 'scigpt[hub]'`: "
        '`scigpt.export.forecaster.Forecaster.from_pretrained("OWNER/NAME")`. '
        f"On the command line: `scigpt forecast path/of/this/folder --input states.nc --steps {steps} --out forecast.nc`.",
    ]


def _training(facts: Mapping[str, Any]) -> list[str]:
    told = facts["training"] | facts["training"].get("data", {})
    rows = [(label, _number(_total(told[key]))) for key, label in TRAINING.items() if told.get(key) is not None]
    rows.append(("made with scigpt", facts.get("code_version") or "an unknown version"))
    data = [(c["name"], c["run"], ", ".join(c["licences"]) or "none stated", c["fingerprint"]) for c in facts["learned_from"]]
    unknown = [
        "",
        f"Not known: the data of {_plain(', '.join(facts['unknown']))}, with which it began and which was gone when it was exported.",
    ]
    return [
        *_table(("", "value"), rows),
        "",
        "Learned from:",
        "",
        *_table(("corpus", "in the run", "licences", "fingerprint (sha256 of the manifest)"), data),
        *(unknown if facts["unknown"] else []),
    ]


def _evaluation(evaluation: Mapping[str, Any] | None) -> list[str]:
    if evaluation is None:
        return ["This checkpoint has not been evaluated (`scigpt evaluate RUN`, before the export)."]
    rows = []
    for corpus in evaluation["corpora"]:
        for part in corpus["splits"]:
            spans = {"next frame": part["summary"]} | (part["rollout"] or {"summary": {}})["summary"]
            for lead, found in spans.items():
                best = found["best_baseline"]
                rows.append(
                    (
                        corpus["name"],
                        part["split"],
                        part["distribution"],
                        lead if lead == "next frame" else f"steps {lead}",
                        figure(found["vrmse"].get("model")),
                        best or "-",
                        figure(found["vrmse"].get(best)),
                        interval(found["difference"]),
                        conclusion(found),
                    )
                )
    header = ("corpus", "split", "distribution", "lead", "VRMSE", "best baseline", "its VRMSE", "difference (95 %)", "the model is")
    return [
        "VRMSE is the root mean square error over the standard deviation of the truth, the mean over variables; the field's own mean "
        "scores 1. The difference is model minus best baseline.",
        "",
        *_table(header, rows),
    ]


def _licences(facts: Mapping[str, Any]) -> list[str]:
    linked = [f"{_plain(name)} ({TERMS[name]})" if name in TERMS else _plain(name) for name in facts["licences"]]
    withheld = sorted({c["name"] for c in facts["learned_from"] if not c["redistributable"]})
    lines = [
        f"- licences: {'; '.join(linked) or 'none stated'}",
        f"- to be credited: {_plain('; '.join(facts['attributions'])) or 'nobody asks for it'}",
        "- code of scigpt: Apache-2.0",
    ]
    if withheld:
        lines.append(f"- not to be redistributed: the data of {_plain(', '.join(withheld))}")
    if facts["unknown"]:
        lines.append(f"- not known: the licences of the data of {_plain(', '.join(facts['unknown']))}")
    return [*lines, "", "The export holds weights and statistics, and none of the data."]


def _limits(facts: Mapping[str, Any], domains: Sequence[Domain]) -> list[str]:
    lines = ["- Nothing is known of its errors on variables, steps, grid spacings, boundaries and coefficients other than those above."]
    if facts["task"]["name"] == "forecast":
        lines += [f"- {HEADS[head]}"] if (head := facts["model"]["head"]) in HEADS else []
    if any(not d.layout.steady for d in domains):
        lines.append("- In a forecast of several steps each step starts from the one before it, so errors add up.")
    if any(d.crop for d in domains):
        lines.append("- Where it saw a part of the grid at once, it has not been trained on the whole of it.")
    return lines


def _files(facts: Mapping[str, Any]) -> list[str]:
    rows = [(name, f"{f['bytes']:,}", f["sha256"]) for name, f in facts["files"].items()]
    lines = [*_table(("file", "bytes", "sha256"), rows), "", "`config.json` holds the same hashes and its own checksum."]
    if any(each["file"].endswith(".pt2") for each in facts["programs"]):
        lines.append("A `.pt2` program can hold code; load it only from a place you trust.")
    return lines


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    return ["| " + " | ".join(_plain(cell) for cell in row) + " |" for row in (header, ("---",) * len(header), *rows)]


def _plain(text: Any) -> str:
    """Text of others, on one line and without a meaning in Markdown or HTML."""
    return re.sub(r"([\\`*|<>\[\]])", r"\\\1", " ".join(str(text).split()))


def _total(told: Any) -> Any:
    """Of what is told by parts."""
    return told["total"] if isinstance(told, Mapping) else told


def _count(number: float) -> str:
    for size, name in ((1e9, "billion"), (1e6, "million"), (1e3, "thousand")):
        if number >= size:
            return f"{number / size:.3g} {name}"
    return f"{number:g}"


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) and value < 10**12 else f"{value:.4g}"
