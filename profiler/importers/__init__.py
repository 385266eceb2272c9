"""Importers: other projects' tables of measured op times, as a profile."""

from __future__ import annotations

from profiler.importers.importing import import_tables

__all__ = ["import_tables"]
