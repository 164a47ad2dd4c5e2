"""constraints/: the oldest versions are those that pyproject.toml allows."""

import tomllib

from packaging.requirements import Requirement

from transfer_learning.cli.project import PROJECT

EXTRAS = ("sweep", "export", "timm")


def pins(name):
    lines = (PROJECT / "constraints" / f"{name}.txt").read_text("utf-8").splitlines()
    found = [Requirement(line) for line in lines if line[0] != "#"]
    return {each.name: next(iter(each.specifier)).version for each in found}


def test_the_oldest_versions_are_the_lowest_that_are_allowed_and_the_newest_are_allowed_too():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
    listed = project["dependencies"] + [each for extra in EXTRAS for each in project["optional-dependencies"][extra]]
    oldest, newest = pins("oldest"), pins("newest")
    for requirement in map(Requirement, listed):
        (lowest,) = (each.version for each in requirement.specifier if each.operator == ">=")
        assert oldest[requirement.name] in (lowest, *(f"{lowest}.{n}" for n in range(3))), requirement
        assert requirement.specifier.contains(newest[requirement.name], prereleases=True), requirement
