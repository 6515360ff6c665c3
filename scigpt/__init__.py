"""SciGPT: pretrain, study and adapt a foundation model for the physical sciences."""

__version__ = "0.1.0"
