"""The version of Eddyline: the only place that holds it."""

VERSION = "0.1.0"
