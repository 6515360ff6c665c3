"""`scigpt sweep`: many small runs of one base configuration, the scaling laws they show, and what these say a budget should buy."""

from __future__ import annotations

import typer

from scigpt.launch.sweep import fit, plan, predict, report, run, status

app = typer.Typer(help="Plan, run, fit and report a sweep over model, data and compute.", no_args_is_help=True, rich_markup_mode=None)
app.command(epilog="Example: scigpt sweep plan configs/sweep.yaml budget.flops=1e14")(plan.plan)
app.command(epilog="Example: scigpt sweep run sweeps/navier-stokes --workers 2")(run.run)
app.command(epilog="Example: scigpt sweep status sweeps/navier-stokes")(status.status)
app.command(epilog="Example: scigpt sweep fit runs.csv --form chinchilla --flops 1e20,1e21")(fit.fit)
app.command(epilog="Example: scigpt sweep report sweeps/navier-stokes")(report.report)
app.command(epilog="Example: scigpt sweep predict sweeps/navier-stokes --flops 1e15 --out next.yaml")(predict.predict)
