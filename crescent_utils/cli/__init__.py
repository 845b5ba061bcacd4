"""The `crescent` command: run, preflight, audit, sweep, rounds, study, plan, report, verify, publish, store and doctor.

In come YAML profiles and NAME=VALUE overrides, checked against the parameters of every notebook before any model
loads. The command runs the notebooks in order with papermill, leaves out what is finished, and goes on after a cut.
Exit status: 0 done, 1 a stage failed or a number differs, 2 bad input (named, with what is allowed). Nothing here is
for other folders to import.
"""

__all__ = []
