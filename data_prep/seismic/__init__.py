"""Seismograms: traces and their grids, stations and orientations, earthquakes and arrivals, and the web services that have them."""
