"""The public data sources, by the name the command line knows them under."""

from scigpt.data_prep.source import Source
from scigpt.data_prep.sources.cmip6 import Cmip6
from scigpt.data_prep.sources.era5 import Era5
from scigpt.data_prep.sources.miniseed import Miniseed
from scigpt.data_prep.sources.ostia import Ostia

SOURCES: dict[str, type[Source]] = {s.name: s for s in (Era5, Cmip6, Ostia, Miniseed)}
