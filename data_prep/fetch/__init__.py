"""Fetching what a source's public route offers: HTTP, object stores, parts of Zarr stores, the climate data store; resumable and polite."""

from __future__ import annotations

from scigpt.data_prep.fetch.earthdata import Earthdata
from scigpt.data_prep.fetch.listing import Listing, look
from scigpt.data_prep.fetch.network import Network, Patience
from scigpt.data_prep.fetch.transfer import Report, fetch

__all__ = ["Earthdata", "Listing", "Network", "Patience", "Report", "fetch", "look"]
