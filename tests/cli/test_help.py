"""`python train.py --help`: one screen, written by hand in conf/hydra/help/one_screen.yaml."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

CONF = Path(__file__).parents[2] / "conf"
TEXT = OmegaConf.load(CONF / "hydra" / "help" / "one_screen.yaml").template
LINES = re.sub(r",\n {10,}", ", ", TEXT.split("Groups\n")[1].split("\n\n")[0])  # long ones go on in the next
GROUPS = dict(re.findall(r"^  ([a-z/]+) {2,}(.+)$", LINES, re.M))
GROUPS["system"] = TEXT.split("system=")[1].splitlines()[0]


def options(group: str) -> set[str]:
    return {file.stem for file in (CONF / group).glob("*.yaml") if not file.name.startswith("_")}


def test_it_is_printed_and_fits_on_a_screen():
    done = subprocess.run([sys.executable, "train.py", "--help"], cwd=CONF.parent, capture_output=True, text=True)
    assert done.stdout.strip() == TEXT.strip()
    lines = TEXT.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 120


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_has_its_options_and_no_others(group):
    assert set(GROUPS[group].split(", ")) == options(group)


def test_groups_with_a_choice_are_all_there():
    inside = {"data/source", "hydra/launcher", "hydra/help"}  # set by `data`; and Hydra's own
    found = {str(file.parent.relative_to(CONF)) for file in CONF.rglob("*.yaml")} - {"."}
    assert {group for group in found if len(options(group)) > 1 or group == "debug"} - inside == set(GROUPS)


def test_its_examples_compose(composed):
    examples = re.findall(r"^  python train\.py (?!-m|resume)(.+?) {2,}", TEXT.split("Examples\n")[1], re.M)
    assert len(examples) == 3
    for example in examples:
        given = example.replace("FOLDER", "photos").split()
        cfg = composed(*given)
        assert all(
            OmegaConf.select(cfg, key) == value for key, value in (each.split("=") for each in given if "." in each)
        )
