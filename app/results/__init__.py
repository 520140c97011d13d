"""Suites of runs that measure what the papers' tables claim, and what came of them. Light: the pages read the figures too."""
