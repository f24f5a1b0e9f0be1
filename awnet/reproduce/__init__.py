"""The tables and figures of the AW-Net paper (section 5): what it prints, what comes out here, and the distance.

`printed` holds the paper's numbers, `bench` trains and attacks what they are about and resumes what is there, `measured` sets
ours beside them and judges the paper's claims by paired differences, `show` writes them down, `produce` is all of it by name.
"""

from awnet.reproduce.bench import Bench, needs
from awnet.reproduce.measured import Claim, Measured, claims, measured
from awnet.reproduce.printed import FIGURES, TABLES, Line, Table
from awnet.reproduce.produce import ALL, produce
from awnet.reproduce.show import markdown, rich_measured

__all__ = [
    "ALL",
    "FIGURES",
    "TABLES",
    "Bench",
    "Claim",
    "Line",
    "Measured",
    "Table",
    "claims",
    "markdown",
    "measured",
    "needs",
    "produce",
    "rich_measured",
]
