"""The public data sources, by the name the command line knows them under, and those that installed packages add.

A package adds a source by an entry point of the group `scigpt.sources`: `name = "package.module:Class"`, the class a `Source` of that name.
"""

import importlib.metadata
import logging
from collections.abc import Collection

from scigpt.data_prep.generic import Generic
from scigpt.data_prep.source import Source
from scigpt.data_prep.sources.arm import Arm
from scigpt.data_prep.sources.arrays import Arrays
from scigpt.data_prep.sources.cmip6 import Cmip6
from scigpt.data_prep.sources.daymet import Daymet
from scigpt.data_prep.sources.earthscope import EarthScope
from scigpt.data_prep.sources.edx import Edx
from scigpt.data_prep.sources.era5 import Era5
from scigpt.data_prep.sources.ess_dive import EssDive
from scigpt.data_prep.sources.fluxnet import Fluxnet
from scigpt.data_prep.sources.gdr import Gdr
from scigpt.data_prep.sources.ghcn import Ghcn
from scigpt.data_prep.sources.grdc import Grdc
from scigpt.data_prep.sources.hls import Hls
from scigpt.data_prep.sources.ilamb import Ilamb
from scigpt.data_prep.sources.miniseed import Miniseed
from scigpt.data_prep.sources.modis import Modis
from scigpt.data_prep.sources.narr import Narr
from scigpt.data_prep.sources.operator_scaling import OperatorScaling
from scigpt.data_prep.sources.ostia import Ostia
from scigpt.data_prep.sources.pdearena import PdeArena
from scigpt.data_prep.sources.pdebench import PdeBench
from scigpt.data_prep.sources.pdegym import PdeGym
from scigpt.data_prep.sources.prism import Prism
from scigpt.data_prep.sources.scec_bbp import ScecBbp
from scigpt.data_prep.sources.segy import Segy
from scigpt.data_prep.sources.seismic_experiments import SeismicExperiments
from scigpt.data_prep.sources.superbench import SuperBench
from scigpt.data_prep.sources.the_well import TheWell

GROUP = "scigpt.sources"
_log = logging.getLogger(__name__)


def installed(taken: Collection[str]) -> dict[str, type[Source]]:
    """Sources of installed packages; one that cannot be used is left out with one sentence in the log.

    Args:
        taken: names that are not free.
    """
    found: dict[str, type[Source]] = {}
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda e: (e.name, e.value)):
        package = entry.dist.name if entry.dist is not None else entry.value
        try:
            source = entry.load()
        except Exception as error:  # whatever a package does when it is imported
            why = f"it cannot be imported: {type(error).__name__}: {' '.join(str(error).split())}"
        else:
            if not (isinstance(source, type) and issubclass(source, Source)):
                why = f"{entry.value} is no subclass of scigpt.data_prep.source.Source"
            elif getattr(source, "__abstractmethods__", None):
                why = f"{entry.value} lacks {', '.join(sorted(source.__abstractmethods__))}"
            elif getattr(source, "name", None) != entry.name or not hasattr(source, "Options"):
                why = f"{entry.value} must have name = {entry.name!r} and a dataclass Options"
            elif entry.name in taken or entry.name in found:
                why = "the name is taken by another source"
            else:
                found[entry.name] = source
                continue
        _log.warning("the source %s of the package %s is left out: %s", entry.name, package, why)
    return found


_STATIONS = (Ghcn, Grdc, Fluxnet, Arm, EssDive)
_GROUND = (EarthScope, SeismicExperiments, Miniseed, ScecBbp, Segy, Gdr, Edx)
_EARTH = (Narr, Daymet, Prism, Modis, Hls, Ilamb, *_STATIONS, *_GROUND, Era5, Cmip6, Ostia)
"""A reader of any GRIB or CMIP-like file comes after those that know a product."""
_SIMULATED = (TheWell, PdeBench, PdeArena, PdeGym, SuperBench, OperatorScaling, Arrays)
SOURCES: dict[str, type[Source]] = {s.name: s for s in (*_EARTH, *_SIMULATED)}
SOURCES |= installed({*SOURCES, Generic.name})
# last, because `scigpt data inspect` takes the first source that recognises a file, and any table is one of the user's own
SOURCES[Generic.name] = Generic
