"""Runs: the parameters of a run, its domain, its folder with tables and manifests, and what it cost.

`settings_from` turns the variables of a notebook into frozen, checked settings; `load_profile` merges YAML profiles.
`get_domain` gives what the method knows of a kind of question: prompts, gates, threshold. `begin_stage` opens the
folder `outputs/<run>/<stage>/`; the stage writes Parquet tables there and, last of all, `manifest.json`, whose
presence means that the stage is complete: parameters as given, contents of what was read, versions, models, counts,
tokens, seconds, memory. `is_current` tells by these contents whether a finished stage has to run again;
`differing_parameters` compares a finished stage with settings by them, and `recorded_parameters` leaves out what a
manifest hides, the folders of the machine.
"""

from .contents import (
    BENCHMARK_FILES,
    NOT_IN_FINGERPRINT,
    SPEED_SETTINGS,
    benchmark_folder,
    file_sha256,
    folder_fingerprint,
    is_current,
    stage_fingerprint,
)
from .costs import Cost, Meter, cost_table
from .domains import (
    Domain,
    Exemplar,
    Message,
    bait_count,
    bait_messages,
    get_domain,
    rewrite_messages,
    solve_messages,
    validity_gates,
)
from .folders import Stage, begin_stage, differing_parameters, library_versions, recorded_parameters
from .layout import (
    NO_STUDENT,
    NOTEBOOKS,
    RunError,
    left_out_stages,
    read_manifest,
    read_table,
    run_folder,
    shown_path,
    stages_before,
    write_json,
)
from .params import (
    ROOT,
    STAGE_SETTINGS,
    STAGES,
    Common,
    Dedup,
    Distil,
    Elicit,
    Evaluate,
    Finetune,
    ParameterError,
    Training,
    Vote,
    build_settings,
    did_you_mean,
    load_profile,
    parameters_of,
    settings_from,
)
from .progress import PROGRESS_SECONDS, ProgressBar, ProgressEcho

__all__ = [
    "BENCHMARK_FILES",
    "Common",
    "Cost",
    "Dedup",
    "Distil",
    "Domain",
    "Elicit",
    "Evaluate",
    "Exemplar",
    "Finetune",
    "Message",
    "Meter",
    "NOTEBOOKS",
    "NOT_IN_FINGERPRINT",
    "NO_STUDENT",
    "PROGRESS_SECONDS",
    "ParameterError",
    "ProgressBar",
    "ProgressEcho",
    "ROOT",
    "RunError",
    "SPEED_SETTINGS",
    "STAGES",
    "STAGE_SETTINGS",
    "Stage",
    "Training",
    "Vote",
    "bait_count",
    "bait_messages",
    "begin_stage",
    "benchmark_folder",
    "build_settings",
    "cost_table",
    "did_you_mean",
    "differing_parameters",
    "file_sha256",
    "folder_fingerprint",
    "get_domain",
    "is_current",
    "left_out_stages",
    "library_versions",
    "load_profile",
    "parameters_of",
    "read_manifest",
    "read_table",
    "recorded_parameters",
    "rewrite_messages",
    "run_folder",
    "settings_from",
    "shown_path",
    "solve_messages",
    "stage_fingerprint",
    "stages_before",
    "validity_gates",
    "write_json",
]
