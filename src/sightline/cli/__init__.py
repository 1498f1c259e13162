"""The command line: each command is one function of the package."""

from sightline.cli import jobs as jobs
from sightline.cli import judge as judge
from sightline.cli import lists as lists
from sightline.cli.app import main as main
