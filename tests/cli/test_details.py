"""What `--help` says beyond the options: every command has it, and what it names is there."""

import re

import pytest
from shared import ROOT

from crescent_utils.cli import details
from crescent_utils.cli import main as main_module
from crescent_utils.runs import params

COMMANDS = next(iter(main_module._parser()._subparsers._group_actions)).choices


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_says_more_than_its_options(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main_module.main([name, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.rstrip().endswith((details.OF_COMMAND.get(name) or COMMANDS[name].epilog).rstrip())


def test_the_details_name_parameters_and_files_that_are_there():
    texts = "\n".join([details.GENERAL, *details.OF_COMMAND.values()])
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)[:`]", texts)) - {"rejected", "bundled", "run"}
    assert named <= set(params.NAMES) and len(named) > 10
    for path in re.findall(r"(?:params|crescent_utils)/[\w/.]*\w", texts):
        assert (ROOT / path).exists(), path
    assert not re.search(r"/(?:home|root|tmp)/", texts)
    assert set(details.OF_COMMAND) <= set(COMMANDS)
