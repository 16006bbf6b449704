"""pyrunc, an OCI low-level container runtime. The version only: importing this must cost nothing."""

__version__ = "0.1.0"
