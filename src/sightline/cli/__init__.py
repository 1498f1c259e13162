"""The command line: each command is one function of the package."""

from sightline.cli import analyze as analyze
from sightline.cli import check as check
from sightline.cli import info as info
from sightline.cli import plant as plant
from sightline.cli import ship as ship
from sightline.cli import train as train
from sightline.cli.app import main as main
